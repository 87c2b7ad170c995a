// A tailnet's control server for tests: Tailscale's own test control server with a DERP relay and STUN beside it, and it knows who is
// online. Listens on -ip; says where as one line of JSON; ends with its standard input.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync"
	"time"

	"crypto/tls"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/netaddr"
	"tailscale.com/net/stun"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
)

func main() {
	ip := flag.String("ip", "", "the IPv4 address that the nodes of the tailnet reach")
	verbose := flag.Bool("verbose", false, "log what the control server does")
	flag.Parse()
	if _, err := netip.ParseAddr(*ip); err != nil {
		log.Fatalf("-ip: %v", err)
	}
	logf := func(string, ...any) {}
	if *verbose {
		logf = log.Printf
	}

	derpPort := serveDERP(*ip, logf)
	stunPort := serveSTUN(*ip)
	control := &testcontrol.Server{
		Logf:             logf,
		Verbose:          *verbose,
		AllNodesSameUser: true,
		MagicDNSDomain:   "tail-test.ts.net",
		DNSConfig:        &tailcfg.DNSConfig{Proxied: true},
		DERPMap: &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: {
			RegionID:   1,
			RegionCode: "test",
			Nodes: []*tailcfg.DERPNode{{
				Name: "t1", RegionID: 1, HostName: *ip, IPv4: *ip, IPv6: "none",
				STUNPort: stunPort, DERPPort: derpPort, InsecureForTests: true, STUNTestIP: *ip,
			}},
		}}},
	}
	online := &presence{control: control, streams: map[key.NodePublic]int{}}
	control.HoldMapRequest = online.hold

	listener, err := net.Listen("tcp", net.JoinHostPort(*ip, "0"))
	if err != nil {
		log.Fatal(err)
	}
	control.ExplicitBaseURL = "http://" + listener.Addr().String()
	go func() { log.Fatal(http.Serve(listener, control)) }()

	said, err := json.Marshal(map[string]string{"control": control.ExplicitBaseURL})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(said))
	// Whoever started this holds the other end: nothing is left when that process dies.
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		log.Fatal(err)
	}
}

// presence tells the tailnet which nodes are online: those that hold a stream of the map open. The test control server has no notion of
// it (all or none), the real ones do it so.
type presence struct {
	control *testcontrol.Server
	mu      sync.Mutex
	streams map[key.NodePublic]int
}

func (p *presence) hold(req *tailcfg.MapRequest) func() {
	if !req.Stream || req.ReadOnly {
		return nil
	}
	p.count(req.NodeKey, 1)
	return func() { p.count(req.NodeKey, -1) }
}

func (p *presence) count(node key.NodePublic, by int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.streams[node] > 0
	p.streams[node] += by
	after := p.streams[node] > 0
	known := p.control.Node(node)
	if known == nil || (before == after && known.Online != nil) {
		return
	}
	known.Online = &after
	if !after {
		now := time.Now().UTC().Truncate(time.Second)
		known.LastSeen = &now
	}
	p.control.UpdateNode(known)
}

func serveDERP(ip string, logf func(string, ...any)) int {
	derp := derpserver.New(key.NewNode(), logf)
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewUnstartedServer(derpserver.Handler(derp))
	server.Listener.Close()
	server.Listener = listener
	// HTTP/2 cannot be taken over by DERP.
	server.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	return listener.Addr().(*net.TCPAddr).Port
}

func serveSTUN(ip string) int {
	var config net.ListenConfig
	socket, err := config.ListenPacket(context.Background(), "udp4", net.JoinHostPort(ip, "0"))
	if err != nil {
		log.Fatal(err)
	}
	udp := socket.(*net.UDPConn)
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(buffer)
			if err != nil {
				log.Fatal(err)
			}
			id, err := stun.ParseBindingRequest(buffer[:n])
			if err != nil {
				continue
			}
			if _, err := udp.WriteToUDPAddrPort(stun.Response(id, netaddr.Unmap(from)), from); err != nil {
				log.Printf("STUN: %v", err)
			}
		}
	}()
	return udp.LocalAddr().(*net.UDPAddr).Port
}
