# Dashboards, monitoring and the Consul UI: weft's records, its entries in the catalog and their checks; writes nothing
# ("weft" is consul.prefix).
#
#   consul acl policy create -name weft-readonly -rules @deploy/consul/readonly.hcl

key_prefix "weft/" {
  policy = "read"
}
service "weft" {
  policy = "read"
}
service_prefix "weft-" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
