# A person, or a backup job, who looks after weft in Consul: reads everything, and may save, restore and wipe the folder
# ("weft" is consul.prefix).
#
#   consul acl policy create -name weft-operator -rules @deploy/consul/operator.hcl
#
# Nobody needs it for daily work: `weft ...` asks the agent of its host, which uses its own token. Who has it can take
# every network down by deleting records, but cannot redirect or read one: records are signed by the nodes.

key_prefix "weft/" {
  policy = "write"
}

# The agents in the catalog: look at them and their checks, and take a dead host's entry out.
service "weft" {
  policy = "write"
}
service_prefix "weft-" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
agent_prefix "" {
  policy = "read"
}
