# For Nomad clients, beside what else configures them: where weft-cni and the configurations lie that
# `weft cni install my-app --dir /opt/cni/config` writes. Nomad reads them when it starts and on SIGHUP.
client {
  cni_path       = "/opt/cni/bin"
  cni_config_dir = "/opt/cni/config"
}
