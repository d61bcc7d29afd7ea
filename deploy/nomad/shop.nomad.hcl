# Two groups on the weft network my-app: web asks api by its name, wherever both run. No volume, no sidecar, no port of
# the host.
#
#   weft network create my-app --encrypted             # once
#   weft cni install my-app --dir /opt/cni/config      # on each client, then reload Nomad
#   nomad job run shop.nomad.hcl
#   nomad job scale shop api 5
job "shop" {
  datacenters = ["dc1"]
  type        = "service"

  group "api" {
    count = 2

    scaling {
      enabled = true
      min     = 1
      max     = 10
    }

    network {
      mode = "cni/my-app"
    }

    # Consul's own view, with the overlay address. Inside the network the name shop-api needs none of this.
    service {
      name         = "shop-api"
      provider     = "consul"
      address_mode = "alloc"
      port         = "8080"
    }

    task "server" {
      driver = "docker"

      config {
        image   = "python:3-alpine"
        command = "python3"
        args    = ["-m", "http.server", "8080"]
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }

  group "web" {
    count = 1

    network {
      mode = "cni/my-app"

      # What weft-cni takes from a job (Nomad 1.8 and later): other services than <job>-<group>, and aliases.
      cni {
        args = {
          WEFT_SERVICE = "web,shop-web"
          WEFT_ALIASES = "www"
        }
      }
    }

    task "client" {
      driver = "docker"

      config {
        image   = "python:3-alpine"
        command = "sh"
        args    = ["-c", "while sleep 5; do wget -q -O - http://shop-api:8080/ && echo; done"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
