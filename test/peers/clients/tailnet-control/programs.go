// Names the two programs of the tailnet that are built from this module, so that go.mod holds what they need.

//go:build tools

package main

import (
	_ "tailscale.com/cmd/tailscale"
	_ "tailscale.com/cmd/tailscaled"
)
