# trilith render --config examples/render.hcl: what /etc/trilith-render/render.hcl may look like.
wait {
  min = "250ms"
  max = "2s"
}

# HAProxy's backend "greeter", beside the configuration with frontends and defaults.
template {
  haproxy     = "greeter"
  destination = "/etc/haproxy/greeter.cfg"
  check       = "haproxy -c -f /etc/haproxy/haproxy.cfg -f {}"
  command     = "systemctl reload haproxy"
}

# Any file by a Go template with consul-template's functions.
template {
  contents    = <<EOT
{{- range service "greeter" }}
{{ .Address }}:{{ .Port }} # {{ .ID }} on {{ .Node }}
{{- else }}
# nobody greets
{{- end }}
EOT
  destination = "/etc/greeters"
  perms       = 0644
}
