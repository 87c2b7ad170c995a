// A program that uses Consul's own Go client the way programs do; `go-api SCENARIO` exits with 0 and "ok SCENARIO" or says what was wrong.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/api/watch"
)

const patience = 20 * time.Second

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func must(what string, err error) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func want(what string, got, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		fail("%s: got %#v, wanted %#v", what, got, wanted)
	}
}

func refused(what string, err error, words string) {
	if err == nil || !strings.Contains(err.Error(), words) {
		fail("%s: got error %v, wanted one with %q", what, err, words)
	}
}

// within takes what comes out of a channel, or fails when nothing does.
func within[T any](what string, c <-chan T) T {
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		fail("%s: nothing came within %s", what, patience)
		panic("not reached")
	}
}

// until takes from a channel up to the first value that will do.
func until[T any](what string, c <-chan T, will func(T) bool) T {
	deadline := time.After(patience)
	var last T
	for {
		select {
		case last = <-c:
			if will(last) {
				return last
			}
		case <-deadline:
			fail("%s: not within %s; the last value was %#v", what, patience, last)
		}
	}
}

var clients atomic.Int32

// client talks to the agents of CONSUL_HTTP_ADDR in turn, which are separated by commas.
func client() *api.Client {
	agents := strings.Split(os.Getenv("CONSUL_HTTP_ADDR"), ",")
	config := api.DefaultConfig()
	config.Address = agents[int(clients.Add(1)-1)%len(agents)]
	c, err := api.NewClient(config)
	must("client", err)
	return c
}

func statuses(entries []*api.ServiceEntry) []string {
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Service.ID+" "+e.Checks.AggregatedStatus())
	}
	sort.Strings(out)
	return out
}

// follow asks by blocking queries and tells every state it sees, in order.
func follow[T any](ask func(*api.QueryOptions) (T, *api.QueryMeta, error)) (<-chan T, func()) {
	ctx, stop := context.WithCancel(context.Background())
	seen := make(chan T, 100)
	go func() {
		index := uint64(0)
		for ctx.Err() == nil {
			answer, meta, err := ask((&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx))
			if ctx.Err() != nil {
				return
			}
			must("blocking query", err)
			if meta.LastIndex == 0 {
				fail("blocking query: index 0")
			}
			index = meta.LastIndex
			seen <- answer
		}
	}()
	return seen, stop
}

func service(c *api.Client) {
	self, err := c.Agent().Self()
	must("self", err)
	node, _ := self["Config"]["NodeName"].(string)
	name, err := c.Agent().NodeName()
	must("node name", err)
	want("node name", name, node)

	all, stopAll := follow(func(q *api.QueryOptions) ([]*api.ServiceEntry, *api.QueryMeta, error) {
		return c.Health().Service("web", "", false, q)
	})
	defer stopAll()
	passing, stopPassing := follow(func(q *api.QueryOptions) ([]*api.ServiceEntry, *api.QueryMeta, error) {
		return c.Health().Service("web", "v1", true, q)
	})
	defer stopPassing()
	want("before", statuses(within("health", all)), []string{})
	want("before, passing", statuses(within("health", passing)), []string{})

	must("register", c.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "web-1", Name: "web", Tags: []string{"v1", "blue"}, Port: 8080, Address: "192.0.2.10",
		Meta:            map[string]string{"version": "1.2", "__proto__": "x"},
		Weights:         &api.AgentWeights{Passing: 10, Warning: 2},
		TaggedAddresses: map[string]api.ServiceAddress{"lan": {Address: "192.0.2.11", Port: 81}},
		Checks: api.AgentServiceChecks{
			{CheckID: "web-ttl", Name: "life", TTL: "1h", Status: api.HealthPassing, Notes: "by hand"},
		},
	}))
	is := func(wanted ...string) func([]*api.ServiceEntry) bool {
		return func(entries []*api.ServiceEntry) bool {
			return strings.Join(statuses(entries), ",") == strings.Join(wanted, ",")
		}
	}
	came := until("the service comes", all, is("web-1 passing"))
	until("the service comes, passing", passing, is("web-1 passing"))
	got := came[0].Service
	want("tags", got.Tags, []string{"v1", "blue"})
	want("meta", got.Meta, map[string]string{"version": "1.2", "__proto__": "x"})
	want("weights", got.Weights, api.AgentWeights{Passing: 10, Warning: 2})
	want("address", fmt.Sprint(got.Address, ":", got.Port), "192.0.2.10:8080")
	want("lan", got.TaggedAddresses["lan"], api.ServiceAddress{Address: "192.0.2.11", Port: 81})
	want("node", came[0].Node.Node, node)

	must("warn", c.Agent().WarnTTL("web-ttl", "slow"))
	until("it is slow", all, is("web-1 warning"))
	until("it is slow, passing", passing, is())
	must("fail", c.Agent().FailTTL("web-ttl", "broken"))
	until("it is critical", all, is("web-1 critical"))
	checks, _, err := c.Health().Checks("web", nil)
	must("checks", err)
	want("output", checks[0].Output, "broken")
	state, _, err := c.Health().State(api.HealthCritical, nil)
	must("state", err)
	want("critical checks", len(state), 1)
	status, info, err := c.Agent().AgentHealthServiceByID("web-1")
	must("agent health", err)
	want("agent health", status+" "+info.Service.Service, "critical web")
	must("update", c.Agent().UpdateTTL("web-ttl", "fine", api.HealthPassing))
	until("it is well again", passing, is("web-1 passing"))
	must("maintenance", c.Agent().EnableServiceMaintenance("web-1", "new disk"))
	until("maintenance", passing, is())
	until("maintenance", all, is("web-1 maintenance"))
	must("maintenance over", c.Agent().DisableServiceMaintenance("web-1"))
	until("maintenance over", passing, is("web-1 passing"))

	byFilter, err := c.Agent().ServicesWithFilter(`Service == web and "blue" in Tags and Meta.version == "1.2"`)
	must("filter", err)
	want("filter", len(byFilter), 1)
	one, meta, err := c.Agent().Service("web-1", nil)
	must("agent service", err)
	want("agent service", one.Port, 8080)
	if meta.LastContentHash == "" || meta.LastContentHash != one.ContentHash {
		fail("agent service: content hash %q, header %q", one.ContentHash, meta.LastContentHash)
	}
	hashed := make(chan *api.AgentService, 1)
	go func() {
		changed, _, err := c.Agent().Service("web-1", &api.QueryOptions{WaitHash: one.ContentHash, WaitTime: time.Minute})
		must("hash-based blocking", err)
		hashed <- changed
	}()
	must("register again", c.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{ID: "web-1", Name: "web", Port: 8081},
		api.ServiceRegisterOpts{ReplaceExistingChecks: true}))
	want("hash-based blocking", within("hash-based blocking", hashed).Port, 8081)
	until("no check is left", all, func(e []*api.ServiceEntry) bool {
		return len(e) == 1 && len(e[0].Checks) == 1 && e[0].Service.Port == 8081
	})

	services, _, err := c.Catalog().Services(nil)
	must("services", err)
	want("services", services, map[string][]string{"consul": {}, "web": {}})
	instances, _, err := c.Catalog().Service("web", "", nil)
	must("catalog service", err)
	want("catalog service", fmt.Sprint(len(instances), " ", instances[0].ServicePort, " ", instances[0].Node), "1 8081 "+node)
	nodes, _, err := c.Catalog().Nodes(&api.QueryOptions{Filter: "Node == " + node})
	must("nodes", err)
	want("nodes", len(nodes), 1)
	whole, _, err := c.Catalog().Node(node, nil)
	must("node", err)
	want("services of the node", whole.Services["web-1"].Port, 8081)
	none, _, err := c.Catalog().Node("nobody", nil)
	must("node that is not there", err)
	if none != nil {
		fail("node that is not there: %#v", none)
	}

	must("deregister", c.Agent().ServiceDeregister("web-1"))
	until("it is gone", all, is())
	refused("deregister twice", c.Agent().ServiceDeregister("web-1"), "Unknown service ID")
	_, _, err = c.Agent().Service("web-1", nil)
	refused("agent service that is gone", err, "404")
}

func catalog(c *api.Client) {
	services, stop := follow(func(q *api.QueryOptions) (map[string][]string, *api.QueryMeta, error) { return c.Catalog().Services(q) })
	defer stop()
	_, err := c.Catalog().Register(&api.CatalogRegistration{
		Node: "printer", Address: "192.0.2.50", NodeMeta: map[string]string{"external-node": "true"},
		Service: &api.AgentService{ID: "lpd", Service: "lpd", Tags: []string{"paper"}, Port: 515},
		Checks:  api.HealthChecks{{Node: "printer", CheckID: "ink", Name: "ink", Status: api.HealthPassing, ServiceID: "lpd"}},
	}, nil)
	must("register", err)
	until("it comes", services, func(s map[string][]string) bool { return reflect.DeepEqual(s["lpd"], []string{"paper"}) })
	entries, _, err := c.Health().Service("lpd", "paper", true, &api.QueryOptions{NodeMeta: map[string]string{"external-node": "true"}})
	must("health", err)
	want("health", statuses(entries), []string{"lpd passing"})
	_, err = c.Catalog().Register(&api.CatalogRegistration{Node: "printer", Address: "192.0.2.50", SkipNodeUpdate: true,
		Check: &api.AgentCheck{Node: "printer", CheckID: "ink", Name: "ink", Status: api.HealthCritical, ServiceID: "lpd"}}, nil)
	must("no ink", err)
	entries, _, err = c.Health().Service("lpd", "", true, nil)
	must("health", err)
	want("no ink", statuses(entries), []string{})
	_, err = c.Catalog().Deregister(&api.CatalogDeregistration{Node: "printer"}, nil)
	must("deregister", err)
	until("it goes", services, func(s map[string][]string) bool { return s["lpd"] == nil })
	dcs, err := c.Catalog().Datacenters()
	must("datacenters", err)
	want("datacenters", dcs, []string{"dc1"})
	_, err = c.Catalog().Register(&api.CatalogRegistration{Address: "192.0.2.50"}, nil)
	refused("no node", err, "Must provide node")
}

func watches(c *api.Client) {
	type seen struct {
		index uint64
		data  any
	}
	start := func(params map[string]any) (<-chan seen, *watch.Plan) {
		plan, err := watch.Parse(params)
		must("watch", err)
		out := make(chan seen, 100)
		plan.HybridHandler = func(val watch.BlockingParamVal, data any) {
			index, _ := val.(watch.WaitIndexVal)
			out <- seen{uint64(index), data}
		}
		go func() { must("watch", plan.RunWithClientAndHclog(c, nil)) }()
		return out, plan
	}
	key, p1 := start(map[string]any{"type": "key", "key": "watched/a"})
	prefix, p2 := start(map[string]any{"type": "keyprefix", "prefix": "watched/"})
	services, p3 := start(map[string]any{"type": "services"})
	nodes, p4 := start(map[string]any{"type": "nodes"})
	web, p5 := start(map[string]any{"type": "service", "service": "watched", "passingonly": true, "tag": []string{"a", "b"}})
	checks, p6 := start(map[string]any{"type": "checks", "state": "critical"})
	events, p7 := start(map[string]any{"type": "event", "name": "watched"})
	defer func() {
		for _, p := range []*watch.Plan{p1, p2, p3, p4, p5, p6, p7} {
			p.Stop()
		}
	}()
	_, err := c.KV().Put(&api.KVPair{Key: "watched/a", Value: []byte("1")}, nil)
	must("put", err)
	until("key", key, func(s seen) bool {
		pair, is := s.data.(*api.KVPair)
		return is && pair != nil && string(pair.Value) == "1"
	})
	until("key prefix", prefix, func(s seen) bool { return len(s.data.(api.KVPairs)) == 1 })
	_, err = c.KV().Delete("watched/a", nil)
	must("delete", err)
	until("key deleted", key, func(s seen) bool { pair, is := s.data.(*api.KVPair); return !is || pair == nil })
	until("key prefix deleted", prefix, func(s seen) bool { return len(s.data.(api.KVPairs)) == 0 })

	must("register", c.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "watched-1", Name: "watched", Tags: []string{"a", "b"},
		Check: &api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing}}))
	until("services", services, func(s seen) bool { return s.data.(map[string][]string)["watched"] != nil })
	until("service", web, func(s seen) bool { return len(s.data.([]*api.ServiceEntry)) == 1 })
	within("nodes", nodes)
	within("checks", checks)
	// This type goes by the hash of the content; it complains aloud about services that are not there.
	agentService, p8 := start(map[string]any{"type": "agent_service", "service_id": "watched-1"})
	until("agent service", agentService, func(s seen) bool {
		a, is := s.data.(*api.AgentService)
		return is && a != nil && a.Service == "watched"
	})
	p8.Stop()
	must("fail", c.Agent().FailTTL("service:watched-1", ""))
	until("service critical", web, func(s seen) bool { return len(s.data.([]*api.ServiceEntry)) == 0 })
	until("checks critical", checks, func(s seen) bool { return len(s.data.([]*api.HealthCheck)) == 1 })
	must("deregister", c.Agent().ServiceDeregister("watched-1"))
	until("services gone", services, func(s seen) bool { return s.data.(map[string][]string)["watched"] == nil })
	until("checks gone", checks, func(s seen) bool { return len(s.data.([]*api.HealthCheck)) == 0 })
	_, _, err = c.Event().Fire(&api.UserEvent{Name: "watched", Payload: []byte("hello")}, nil)
	must("fire", err)
	until("event", events, func(s seen) bool {
		list := s.data.([]*api.UserEvent)
		return len(list) == 1 && string(list[0].Payload) == "hello"
	})
}

func kv(c *api.Client) {
	k := c.KV()
	value := []byte{0, 255, 128, 10}
	_, err := k.Put(&api.KVPair{Key: "app/ключ wert+%", Value: value, Flags: math.MaxUint64}, nil)
	must("put", err)
	pair, meta, err := k.Get("app/ключ wert+%", nil)
	must("get", err)
	want("value", pair.Value, value)
	want("flags", pair.Flags, uint64(math.MaxUint64))
	if meta.LastIndex != pair.ModifyIndex {
		fail("index %d, modify index %d", meta.LastIndex, pair.ModifyIndex)
	}
	cas := func(what string, p *api.KVPair, wanted bool) {
		done, _, err := k.CAS(p, nil)
		must(what, err)
		want(what, done, wanted)
	}
	cas("create what is there", &api.KVPair{Key: pair.Key, Value: []byte("x")}, false)
	cas("create what is not there", &api.KVPair{Key: "app/new", Value: []byte("x")}, true)
	cas("change at its index", &api.KVPair{Key: pair.Key, Value: []byte("y"), ModifyIndex: pair.ModifyIndex}, true)
	cas("change at an old index", &api.KVPair{Key: pair.Key, Value: []byte("z"), ModifyIndex: pair.ModifyIndex}, false)

	// Twenty at a time count by compare-and-set: nothing is lost.
	var group sync.WaitGroup
	for worker := 0; worker < 20; worker++ {
		group.Add(1)
		k := client().KV()
		go func() {
			defer group.Done()
			for done := 0; done < 5; {
				old, _, err := k.Get("counter", &api.QueryOptions{RequireConsistent: true})
				must("counter", err)
				next := &api.KVPair{Key: "counter"}
				count := 0
				if old != nil {
					fmt.Sscan(string(old.Value), &count)
					next.ModifyIndex = old.ModifyIndex
				}
				next.Value = []byte(fmt.Sprint(count + 1))
				won, _, err := k.CAS(next, nil)
				must("counter", err)
				if won {
					done++
				}
			}
		}()
	}
	group.Wait()
	counted, _, err := k.Get("counter", nil)
	must("counter", err)
	want("counter", string(counted.Value), "100")

	keys, _, err := k.Keys("app/", "", nil)
	must("keys", err)
	want("keys", keys, []string{"app/new", "app/ключ wert+%"})
	_, err = k.Put(&api.KVPair{Key: "app/dir/x"}, nil)
	must("put", err)
	keys, _, err = k.Keys("app/", "/", nil)
	must("keys", err)
	want("folders", keys, []string{"app/dir/", "app/new", "app/ключ wert+%"})
	list, _, err := k.List("app", nil)
	must("list", err)
	want("list", len(list), 3)

	seen, stop := follow(func(q *api.QueryOptions) (api.KVPairs, *api.QueryMeta, error) { return k.List("app/", q) })
	defer stop()
	within("list", seen)
	done, _, err := k.DeleteCAS(&api.KVPair{Key: "app/new", ModifyIndex: 1}, nil)
	must("delete at an old index", err)
	want("delete at an old index", done, false)
	_, err = k.DeleteTree("app/dir", nil)
	must("delete tree", err)
	until("the folder goes", seen, func(l api.KVPairs) bool { return len(l) == 2 })
	_, err = k.DeleteTree("app/", nil)
	must("delete tree", err)
	until("all go", seen, func(l api.KVPairs) bool { return len(l) == 0 })
	none, _, err := k.Get("app/new", nil)
	must("get what is gone", err)
	if none != nil {
		fail("get what is gone: %#v", none)
	}
	_, err = k.Put(&api.KVPair{Key: "big", Value: make([]byte, 512*1024)}, nil)
	must("512 KiB", err)
	_, err = k.Put(&api.KVPair{Key: "big", Value: make([]byte, 512*1024+1)}, nil)
	refused("more than 512 KiB", err, "413")
}

func lock(c *api.Client) {
	options := func() *api.LockOptions {
		return &api.LockOptions{Key: "lock/one", Value: []byte("me"), LockDelay: 100 * time.Millisecond}
	}
	first, err := c.LockOpts(options())
	must("lock", err)
	lost, err := first.Lock(nil)
	must("lock", err)
	if lost == nil {
		fail("not locked")
	}
	_, err = first.Lock(nil)
	want("locked twice", err, api.ErrLockHeld)
	held, _, err := c.KV().Get("lock/one", nil)
	must("key", err)
	if held.Session == "" || held.LockIndex != 1 || held.Flags != api.LockFlagValue || string(held.Value) != "me" {
		fail("the key of the lock: %#v", held)
	}
	once := options()
	once.LockTryOnce, once.LockWaitTime = true, 200*time.Millisecond
	impatient, err := c.LockOpts(once)
	must("lock", err)
	got, err := impatient.Lock(nil)
	must("try once", err)
	if got != nil {
		fail("a held lock was taken")
	}
	second, err := client().LockOpts(options())
	must("lock", err)
	taken := make(chan (<-chan struct{}), 1)
	go func() {
		lost, err := second.Lock(nil)
		must("second lock", err)
		taken <- lost
	}()
	must("unlock", first.Unlock())
	lost2 := within("the second takes over", taken)
	want("unlock twice", first.Unlock(), api.ErrLockNotHeld)
	want("destroy what another holds", first.Destroy(), api.ErrLockInUse)
	// Whoever holds it is told when the session ends.
	pair, _, err := c.KV().Get("lock/one", nil)
	must("key", err)
	want("fencing", pair.LockIndex, uint64(2))
	_, err = c.Session().Destroy(pair.Session, nil)
	must("end the session", err)
	within("the holder is told", lost2)
	second.Unlock()
	must("destroy", first.Destroy())
}

func semaphore(c *api.Client) {
	var holding, most atomic.Int32
	var group sync.WaitGroup
	for i := 0; i < 6; i++ {
		s, err := client().SemaphoreOpts(&api.SemaphoreOptions{Prefix: "sem", Limit: 2, SemaphoreWaitTime: 5 * time.Second})
		must("semaphore", err)
		group.Add(1)
		go func() {
			defer group.Done()
			lost, err := s.Acquire(nil)
			must("acquire", err)
			if lost == nil {
				fail("acquire: not held")
			}
			now := holding.Add(1)
			for {
				was := most.Load()
				if now <= was || most.CompareAndSwap(was, now) {
					break
				}
			}
			time.Sleep(50 * time.Millisecond)
			holding.Add(-1)
			must("release", s.Release())
		}()
	}
	group.Wait()
	want("holders at once", most.Load(), int32(2))
	s, err := c.SemaphorePrefix("sem", 2)
	must("semaphore", err)
	must("destroy", s.Destroy())
	left, _, err := c.KV().List("sem/", nil)
	must("list", err)
	want("left over", len(left), 0)
}

// Three candidates follow each other as leaders, each with the lock recipe; the lock index, good for fencing, only grows.
func election(c *api.Client) {
	type reign struct{ who, session string }
	reigns := make(chan reign, 10)
	var leading atomic.Int32
	for _, who := range []string{"a", "b", "c"} {
		go func() {
			mine := client()
			for {
				lock, err := mine.LockOpts(&api.LockOptions{Key: "leader", Value: []byte(who), SessionName: "candidate " + who, SessionTTL: "10s", LockDelay: time.Nanosecond})
				must("lock", err)
				lost, err := lock.Lock(nil)
				if err != nil && strings.Contains(err.Error(), "invalid session") {
					continue
				}
				must("lock", err)
				if n := leading.Add(1); n != 1 {
					fail("%d leaders at once", n)
				}
				held, _, err := mine.KV().Get("leader", &api.QueryOptions{RequireConsistent: true})
				must("leader", err)
				want("who leads", string(held.Value), who)
				leading.Add(-1)
				reigns <- reign{who, held.Session}
				within("the leader is told that it leads no more", lost)
				lock.Unlock()
			}
		}()
	}
	for round := uint64(1); round <= 10; round++ {
		now := within("a leader", reigns)
		pair, _, err := c.KV().Get("leader", nil)
		must("leader", err)
		want("the leader's session", pair.Session, now.session)
		want("the lock index", pair.LockIndex, round)
		_, err = c.Session().Destroy(now.session, nil)
		must("the leader dies", err)
	}
}

func session(c *api.Client) {
	s := c.Session()
	id, _, err := s.Create(&api.SessionEntry{Name: "mine", TTL: "10s", Behavior: api.SessionBehaviorDelete, LockDelay: time.Millisecond}, nil)
	must("create", err)
	info, _, err := s.Info(id, nil)
	must("info", err)
	want("info", fmt.Sprint(info.Name, info.TTL, info.Behavior, info.LockDelay), "mine10sdelete1ms")
	renewed, _, err := s.Renew(id, nil)
	must("renew", err)
	want("renew", renewed.ID, id)
	list, _, err := s.List(nil)
	must("list", err)
	want("list", len(list), 1)
	node, err := c.Agent().NodeName()
	must("node", err)
	list, _, err = s.Node(node, nil)
	must("node's sessions", err)
	want("node's sessions", len(list), 1)
	held, _, err := c.KV().Acquire(&api.KVPair{Key: "ephemeral", Session: id}, nil)
	must("acquire", err)
	want("acquire", held, true)

	done := make(chan struct{})
	periodic := make(chan error, 1)
	go func() { periodic <- s.RenewPeriodic("10s", id, nil, done) }()
	close(done)
	must("renew until told", within("renew until told", periodic))
	gone, _, err := s.Info(id, nil)
	must("info", err)
	if gone != nil {
		fail("RenewPeriodic ends the session: %#v", gone)
	}
	pair, _, err := c.KV().Get("ephemeral", nil)
	must("key", err)
	if pair != nil {
		fail("the key goes with its session: %#v", pair)
	}
	missing, _, err := s.Renew(id, nil)
	must("renew what is gone", err)
	if missing != nil {
		fail("renewed what is gone")
	}

	// A session bound to a check ends with it.
	must("register", c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "bound", Check: &api.AgentServiceCheck{CheckID: "bound", TTL: "1h", Status: "passing"}}))
	id, _, err = s.Create(&api.SessionEntry{NodeChecks: []string{"serfHealth"}, ServiceChecks: []api.ServiceCheck{{ID: "bound"}}}, nil)
	must("create", err)
	sessions, stop := follow(func(q *api.QueryOptions) (*api.SessionEntry, *api.QueryMeta, error) { return s.Info(id, q) })
	defer stop()
	if within("session", sessions) == nil {
		fail("no session")
	}
	must("fail", c.Agent().FailTTL("bound", ""))
	until("it ends with its check", sessions, func(e *api.SessionEntry) bool { return e == nil })
	_, _, err = s.Create(&api.SessionEntry{TTL: "1s"}, nil)
	refused("a TTL too short", err, "Invalid Session TTL")
	must("deregister", c.Agent().ServiceDeregister("bound"))

	// Nobody renews: it ends between its TTL and twice of it.
	id, _, err = s.Create(&api.SessionEntry{TTL: "10s"}, nil)
	must("create", err)
	began := time.Now()
	ended, stop2 := follow(func(q *api.QueryOptions) (*api.SessionEntry, *api.QueryMeta, error) { return s.Info(id, q) })
	defer stop2()
	deadline := time.After(40 * time.Second)
	for {
		select {
		case e := <-ended:
			if e != nil {
				continue
			}
			if time.Since(began) < 10*time.Second {
				fail("it ended after %s", time.Since(began))
			}
			return
		case <-deadline:
			fail("a session of 10 s is there after 40 s")
		}
	}
}

func query(c *api.Client) {
	for i, status := range []string{"passing", "passing", "critical"} {
		must("register", c.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: fmt.Sprint("db-", i), Name: "db", Port: 5432 + i, Tags: []string{"primary"},
			Check: &api.AgentServiceCheck{TTL: "1h", Status: status}}))
	}
	// The agent's own list reaches the catalog before the answer, or soon after.
	seen, stop := follow(func(q *api.QueryOptions) ([]*api.ServiceEntry, *api.QueryMeta, error) {
		return c.Health().Service("db", "", false, q)
	})
	until("registered", seen, func(e []*api.ServiceEntry) bool { return len(e) == 3 })
	stop()
	q := c.PreparedQuery()
	def := &api.PreparedQueryDefinition{Name: "my-db", DNS: api.QueryDNSOptions{TTL: "10s"},
		Service: api.ServiceQuery{Service: "db", OnlyPassing: true, Tags: []string{"primary", "!old"}, Failover: api.QueryFailoverOptions{Datacenters: []string{"dc9"}}}}
	id, _, err := q.Create(def, nil)
	must("create", err)
	for _, name := range []string{id, "my-db"} {
		answer, _, err := q.Execute(name, nil)
		must("execute", err)
		want("nodes", len(answer.Nodes), 2)
		want("answer", fmt.Sprint(answer.Service, answer.DNS.TTL, answer.Datacenter, answer.Failovers), "db10sdc10")
	}
	def.ID, def.Service.OnlyPassing, def.Service.Tags = id, true, []string{"none"}
	def.Service.Failover = api.QueryFailoverOptions{}
	_, err = q.Update(def, nil)
	must("update", err)
	answer, _, err := q.Execute("my-db", nil)
	must("execute", err)
	want("nobody", len(answer.Nodes), 0)
	got, _, err := q.Get(id, nil)
	must("get", err)
	want("get", got[0].Service.Tags, []string{"none"})
	_, _, err = q.Create(&api.PreparedQueryDefinition{Name: "my-db", Service: api.ServiceQuery{Service: "db"}}, nil)
	refused("the name is taken", err, "aliases an existing query name")
	template, _, err := q.Create(&api.PreparedQueryDefinition{Name: "find-", Template: api.QueryTemplate{Type: "name_prefix_match"},
		Service: api.ServiceQuery{Service: "${name.suffix}"}}, nil)
	must("template", err)
	answer, _, err = q.Execute("find-db", nil)
	must("execute a template", err)
	want("template", fmt.Sprint(answer.Service, len(answer.Nodes)), "db2")
	list, _, err := q.List(nil)
	must("list", err)
	want("list", len(list), 2)
	for _, one := range []string{id, template} {
		_, err = q.Delete(one, nil)
		must("delete", err)
	}
	_, _, err = q.Execute("my-db", nil)
	refused("execute what is gone", err, "Query not found")
	for i := 0; i < 3; i++ {
		must("deregister", c.Agent().ServiceDeregister(fmt.Sprint("db-", i)))
	}
}

func event(c *api.Client) {
	e := c.Event()
	seen, stop := follow(func(q *api.QueryOptions) ([]*api.UserEvent, *api.QueryMeta, error) { return e.List("deploy", q) })
	defer stop()
	var ids []string
	for i := 0; i < 3; i++ {
		id, _, err := e.Fire(&api.UserEvent{Name: "deploy", Payload: []byte{byte(i), 0xff}, NodeFilter: ".*"}, nil)
		must("fire", err)
		ids = append(ids, id)
	}
	_, _, err := e.Fire(&api.UserEvent{Name: "other"}, nil)
	must("fire", err)
	list := until("events", seen, func(l []*api.UserEvent) bool { return len(l) == 3 })
	for i, one := range list {
		want("id", one.ID, ids[i])
		want("payload", one.Payload, []byte{byte(i), 0xff})
		want("node filter", one.NodeFilter, ".*")
	}
	_, meta, err := e.List("deploy", nil)
	must("list", err)
	want("index", meta.LastIndex, e.IDToIndex(ids[2]))
	_, _, err = e.Fire(&api.UserEvent{Name: "deploy", NodeFilter: "("}, nil)
	refused("a bad filter", err, "Invalid node filter")
}

func txn(c *api.Client) {
	id, _, err := c.Session().Create(&api.SessionEntry{}, nil)
	must("session", err)
	ok, answer, _, err := c.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: "t/a"}},
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: "t/a", Value: []byte("1"), Flags: 7}},
		{KV: &api.KVTxnOp{Verb: api.KVLock, Key: "t/lock", Value: []byte("l"), Session: id}},
		{KV: &api.KVTxnOp{Verb: api.KVGet, Key: "t/a"}},
		{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: "outside", Address: "192.0.2.60"}}},
		{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: "outside", Service: api.AgentService{ID: "s", Service: "s", Port: 1}}},
		{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: api.HealthCheck{Node: "outside", CheckID: "c", Name: "c", ServiceID: "s", Status: "passing",
			Definition: api.HealthCheckDefinition{TCP: "192.0.2.60:1", IntervalDuration: 5 * time.Second}}}},
	}, nil)
	must("txn", err)
	want("txn", ok, true)
	want("results", len(answer.Results), 6)
	want("get in the transaction", string(answer.Results[2].KV.Value), "1")
	want("flags", answer.Results[2].KV.Flags, uint64(7))
	want("check", answer.Results[5].Check.Definition.IntervalDuration, 5*time.Second)
	entries, _, err := c.Health().Service("s", "", true, nil)
	must("health", err)
	want("health", statuses(entries), []string{"s passing"})
	want("node", entries[0].Node.Node, "outside")

	ok, answer, _, err = c.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: "t/b", Value: []byte("1")}},
		{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: "t/a", Index: 1, Value: []byte("2")}},
		{KV: &api.KVTxnOp{Verb: api.KVCheckSession, Key: "t/a", Session: id}},
	}, nil)
	must("a transaction that fails", err)
	want("a transaction that fails", ok, false)
	if len(answer.Errors) == 0 || answer.Errors[0].OpIndex != 1 {
		fail("errors: %#v", answer.Errors)
	}
	pair, _, err := c.KV().Get("t/b", nil)
	must("get", err)
	if pair != nil {
		fail("half of a transaction was done")
	}
	ok, both, _, err := c.KV().Txn(api.KVTxnOps{{Verb: api.KVGetTree, Key: "t/"}, {Verb: api.KVUnlock, Key: "t/lock", Session: id, Value: []byte("u")}}, nil)
	must("KV txn", err)
	want("KV txn", fmt.Sprint(ok, " ", len(both.Results)), "true 3")
	ok, _, _, err = c.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVDeleteTree, Key: "t/"}},
		{Node: &api.NodeTxnOp{Verb: api.NodeDelete, Node: api.Node{Node: "outside"}}},
	}, nil)
	must("clean up", err)
	want("clean up", ok, true)
	entries, _, err = c.Health().Service("s", "", false, nil)
	must("health", err)
	want("gone", statuses(entries), []string{})
	_, err = c.Session().Destroy(id, nil)
	must("end the session", err)
}

func snapshot(c *api.Client) {
	_, err := c.KV().Put(&api.KVPair{Key: "kept", Value: []byte("1")}, nil)
	must("put", err)
	stream, _, err := c.Snapshot().Save(nil)
	must("save", err)
	saved, err := io.ReadAll(stream)
	must("save", err)
	stream.Close()
	_, err = c.KV().Put(&api.KVPair{Key: "kept", Value: []byte("2")}, nil)
	must("put", err)
	_, err = c.KV().Put(&api.KVPair{Key: "later"}, nil)
	must("put", err)
	must("restore", c.Snapshot().Restore(nil, bytes.NewReader(saved)))
	pair, _, err := c.KV().Get("kept", nil)
	must("get", err)
	want("restored", string(pair.Value), "1")
	later, _, err := c.KV().Get("later", nil)
	must("get", err)
	if later != nil {
		fail("what came later is still there")
	}
	if c.Snapshot().Restore(nil, strings.NewReader("no snapshot")) == nil {
		fail("restored from garbage")
	}
}

// What programs ask of a cluster before they begin.
func cluster(c *api.Client) {
	leader, err := c.Status().Leader()
	must("leader", err)
	if leader == "" {
		fail("no leader")
	}
	peers, err := c.Status().Peers()
	must("peers", err)
	want("peers", peers, []string{leader})
	members, err := c.Agent().Members(false)
	must("members", err)
	want("members", fmt.Sprint(len(members), " ", members[0].Status, " ", members[0].Tags["role"]), "1 1 consul")
	raft, err := c.Operator().RaftGetConfiguration(nil)
	must("raft", err)
	want("raft", fmt.Sprint(len(raft.Servers), raft.Servers[0].Leader, raft.Servers[0].Voter), "1 true true")
	health, err := c.Operator().AutopilotServerHealth(nil)
	must("autopilot", err)
	want("autopilot", health.Healthy, true)
	_, _, err = c.Coordinate().Nodes(nil)
	must("coordinates", err)
	dcs, err := c.Coordinate().Datacenters()
	must("coordinates of datacenters", err)
	want("coordinates of datacenters", dcs[0].Datacenter, "dc1")
	metrics, err := c.Agent().Metrics()
	must("metrics", err)
	if len(metrics.Gauges) == 0 {
		fail("no gauges")
	}
	_, _, err = c.ACL().TokenList(nil)
	refused("access control lists", err, "ACL support disabled")
	_, _, err = c.Catalog().Nodes(&api.QueryOptions{Datacenter: "dc9"})
	refused("another datacenter", err, "No path to datacenter")
	_, _, err = c.Catalog().Nodes(&api.QueryOptions{Filter: "Nope =="})
	refused("a bad filter", err, "500")
	stop := make(chan struct{})
	lines, err := c.Agent().Monitor("debug", stop, nil)
	must("monitor", err)
	// Nobody says when the lines begin to come; so something happens until one does: checks that find nobody.
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for n := 0; ; n++ {
		select {
		case line := <-lines:
			if strings.Contains(line, "noise") {
				close(stop)
				return
			}
		case <-tick.C:
			must("register", c.Agent().CheckRegister(&api.AgentCheckRegistration{Name: fmt.Sprint("noise-", n),
				AgentServiceCheck: api.AgentServiceCheck{TCP: "127.0.0.1:1", Interval: "1s", Status: api.HealthPassing}}))
		case <-deadline:
			fail("monitor: no line about what happens")
		}
	}
}

var scenarios = map[string]func(*api.Client){
	"service": service, "catalog": catalog, "watches": watches, "kv": kv, "lock": lock, "semaphore": semaphore, "election": election,
	"session": session, "query": query, "event": event, "txn": txn, "snapshot": snapshot, "cluster": cluster,
}

func main() {
	if len(os.Args) != 2 || scenarios[os.Args[1]] == nil {
		fail("usage: go-api SCENARIO")
	}
	scenarios[os.Args[1]](client())
	fmt.Println("ok", os.Args[1])
}
