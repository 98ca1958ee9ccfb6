# nomad job run examples/platforms/shop.nomad.hcl
job "shop" {
  group "shop" {
    count = 2

    network {
      port "http" {
        to = 8080
      }
    }

    service {
      name     = "shop"
      port     = "http"
      provider = "nomad"
    }

    # No shutdown_delay: Nomad takes the service out of the catalogue first, and lameduck waits for the traffic itself.

    task "shop" {
      driver = "docker"

      config {
        image = "registry.example.com/shop:1"
        ports = ["http"]
      }

      # Without it the exec and java drivers send SIGINT; the docker driver sends the image's STOPSIGNAL.
      kill_signal = "SIGTERM"
      # 5s if it is not said. The client caps it by its own max_kill_timeout, 30s if that is not said.
      kill_timeout = "30s"

      env {
        LAMEDUCK_GRACE_PERIOD = "30s"
        # Where somebody leaves kill_signal out.
        LAMEDUCK_STOP_ON = "TERM,INT"
        # CPU is in MHz here, which says nothing of cores: the workers are said.
        LAMEDUCK_CPU_REQUEST = "1"
      }

      resources {
        cpu    = 1000
        memory = 512
      }
    }
  }
}
