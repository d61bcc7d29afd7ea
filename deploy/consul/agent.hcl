# The token of one weft agent. Replace NODE by the node's name (node_name in weft's configuration) and, if they differ,
# CONSUL_NODE by the name of the Consul agent it talks to; "weft" below is consul.prefix:
#
#   sed -e 's/CONSUL_NODE/web1/; s/NODE/web1/' deploy/consul/agent.hcl > web1.hcl
#   consul acl policy create -name weft-agent-web1 -rules @web1.hcl
#   consul acl token create -description 'weft on web1' -policy-name weft-agent-web1
#
# One policy for each node: what only a node may write stands under its own name. Consul takes the most exact rule, so a
# key beats a prefix and a longer prefix beats a shorter one. Where acl.enable_key_list_policy is on, write "list" for
# "read" in the first rule.

# Everything is read, and nothing of it is secret: records are signed, not hidden.
key_prefix "weft/" {
  policy = "read"
}

# This node's own records, and their revisions.
key "weft/nodes/NODE" {
  policy = "write"
}
key_prefix "weft/endpoints/NODE/" {
  policy = "write"
}
# revs/<network>/<node>: the network stands first, so one rule cannot name the node. Who writes another node's revision
# makes readers look at a record that has not changed.
key_prefix "weft/revs/" {
  policy = "write"
}
key_prefix "weft/revs/nodes/" {
  policy = "read"
}
key "weft/revs/nodes/NODE" {
  policy = "write"
}

# What any agent may write: networks and removals are signed by their writer; leases, VNIs, VTEP addresses and the call
# for spare addresses are not (SECURITY.md says what follows).
key_prefix "weft/networks/" {
  policy = "write"
}
key_prefix "weft/removed/" {
  policy = "write"
}
key_prefix "weft/vnis/" {
  policy = "write"
}
key_prefix "weft/vteps/" {
  policy = "write"
}
key_prefix "weft/leases/" {
  policy = "write"
}
key_prefix "weft/recall/" {
  policy = "write"
}

# Ciphertexts for preshared keys, by receiver and sender; what a join token admits, and which uses of it are taken. All
# signed but the last, and useless to who is not meant.
key_prefix "weft/kem/" {
  policy = "write"
}
key_prefix "weft/trust/" {
  policy = "write"
}
key_prefix "weft/slots/" {
  policy = "write"
}

# The sentinel: made by the first node, and put back by any after Consul was wiped. With "read" only an operator can.
key "weft/cluster" {
  policy = "write"
}

# The agent's own entry in the catalog with its checks, and the name of the datacenter from its Consul agent.
service "weft" {
  policy = "write"
}
# "write" lets it ask its Consul agent to join known members again while no server answers; with "read" it does not.
agent "CONSUL_NODE" {
  policy = "write"
}

# The instances of services that run here (consul.catalog_prefix), and who else is there: Consul's word that a host is
# dead takes its endpoints out of the names.
service_prefix "weft-" {
  policy = "write"
}
node_prefix "" {
  policy = "read"
}
