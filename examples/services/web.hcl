# A service in Consul's format: drop it into the service folder (--services FOLDER) and it is registered.
service {
  name = "shop"
  port = 8080
  tags = ["v2", "blue"]

  meta {
    team = "storefront"
  }

  check {
    http     = "http://127.0.0.1:8080/health"
    interval = "10s"
    timeout  = "2s"
  }
}
