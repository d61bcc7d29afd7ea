package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"weft/consul"
	"weft/pkg/api"
	"weft/pkg/config"
	"weft/pkg/overlay"
)

func TestParseStat(t *testing.T) {
	// proc(5): field 3 is the state, 20 the number of threads, 22 the start time.
	stat := func(name, state, threads, start string) string {
		return "42 (" + name + ") " + state + " 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 " + threads + " 0 " + start + " 12345 6 18446744073709551615\n"
	}
	for name, tc := range map[string]struct {
		text string
		want uint64
		err  string
		gone bool
	}{
		"plain":                   {stat("sh", "S", "1", "987"), 987, "", false},
		"spaces in the name":      {stat("tmux: server", "S", "1", "987"), 987, "", false},
		"parentheses in the name": {stat("(sd-pam)", "S", "1", "987"), 987, "", false},
		"a name made to mislead":  {stat("x) Z 1 2 3 4 (y", "R", "1", "987"), 987, "", false},
		"a name that ends in a )": {stat("x))", "R", "1", "987"), 987, "", false},
		"empty name":              {stat("", "R", "1", "987"), 987, "", false},
		"line break in the name":  {stat("a\nb", "R", "1", "987"), 987, "", false},
		"last start":              {stat("sh", "S", "1", "18446744073709551615"), 18446744073709551615, "", false},
		"zombie":                  {stat("sh", "Z", "1", "987"), 0, "it has ended", true},
		"dead":                    {stat("sh", "X", "1", "987"), 0, "it has ended", true},
		"first thread ended":      {stat("sh", "Z", "4", "987"), 987, "", false},
		"zombie with odd threads": {stat("sh", "Z", "x", "987"), 0, "it has ended", true},
		"start is no number":      {stat("sh", "S", "1", "x"), 0, "start time", false},
		"start is negative":       {stat("sh", "S", "1", "-1"), 0, "start time", false},
		"cut short":               {"42 (sh) S 1 42", 0, "not as in proc(5)", false},
		"nothing after the name":  {"42 (sh)", 0, "not as in proc(5)", false},
		"no name":                 {"42 sh S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 12345", 0, "not as in proc(5)", false},
		"empty":                   {"", 0, "not as in proc(5)", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat(42, []byte(tc.text))
			switch {
			case got != tc.want || (err == nil) != (tc.err == ""):
				t.Errorf("parseStat = %d, %v", got, err)
			case err != nil && (!strings.Contains(err.Error(), tc.err) || errors.Is(err, os.ErrNotExist) != tc.gone):
				t.Errorf("error is %v, want %q in it, gone %v", err, tc.err, tc.gone)
			}
		})
	}
}

func TestProcessStart(t *testing.T) {
	first, err := processStart(os.Getpid())
	again, err2 := processStart(os.Getpid())
	if err != nil || err2 != nil || first != again || first == 0 {
		t.Errorf("own start is %d and %d, %v, %v", first, again, err, err2)
	}
	if _, err := processStart(1 << 30); !errors.Is(err, os.ErrNotExist) { // above PID_MAX_LIMIT, linux/threads.h
		t.Errorf("a process that cannot be: %v", err)
	}
	if id, err := bootID(); err != nil || len(id) != 36 {
		t.Errorf("boot id is %q, %v", id, err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (sh) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 12345 6"))
	f.Add([]byte("42 (a) (b)) Z 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 12345 6"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, data []byte) {
		start, err := parseStat(42, data)
		if err != nil && start != 0 {
			t.Errorf("start %d with error %v", start, err)
		}
		// What stands in the name changes nothing.
		if err == nil {
			if got, err := parseStat(42, append([]byte("42 (x) Z 9) ("), data...)); got != start || err != nil {
				t.Errorf("with another name: %d, %v, want %d", got, err, start)
			}
		}
	})
}

func TestFindUnderlay(t *testing.T) {
	ifaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifaces { // whatever the host has
		for _, a := range interfaceAddrs(i) {
			if !a.Is4() || !a.IsGlobalUnicast() {
				continue
			}
			for _, advertise := range []string{a.String(), "::ffff:" + a.String()} { // one address, however it is written
				if u, err := findUnderlay(advertise); err != nil || u.Addr != a || u.MTU == 0 {
					t.Errorf("%s: %+v, %v", advertise, u, err)
				}
			}
			if u, err := findUnderlay(i.Name); err != nil || u.Iface != i.Name || !u.Addr.Is4() || u.MTU != i.MTU {
				t.Errorf("%s: %+v, %v", i.Name, u, err)
			}
		}
	}
	for advertise, want := range map[string]string{
		"lo":               "advertise interface lo has no usable address",
		"127.0.0.1":        "advertise address 127.0.0.1 cannot be reached from other hosts",
		"::ffff:127.0.0.1": "advertise address 127.0.0.1 cannot be reached from other hosts",
		"fe80::1":          "advertise address fe80::1 cannot be reached from other hosts",
		"192.0.2.77":       "advertise address 192.0.2.77 is on no interface of this host: set advertise to one that is, or to an interface name",
		"2001:db8::77":     "advertise address 2001:db8::77 is on no interface",
		"no-such-if":       `advertise "no-such-if" is neither an address nor an interface of this host`,
		"192.0.2.0/24":     "is neither an address nor an interface",
		"host.example.org": "is neither an address nor an interface",
	} {
		if u, err := findUnderlay(advertise); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want %q", advertise, u, err, want)
		}
	}
	// Whether there is a default route depends on the host; either way the answer is whole.
	if u, err := findUnderlay(""); err == nil && (!u.Addr.IsValid() || u.MTU == 0 || u.Iface == "") {
		t.Errorf("default: %+v", u)
	} else if err != nil && !strings.Contains(err.Error(), "set advertise") {
		t.Errorf("default: %v", err)
	}
}

// bare is an agent without its parts.
func bare() *Agent {
	return &Agent{opt: Options{Config: config.Config{NodeName: "n1"}}}
}

func TestPickVTEP(t *testing.T) {
	lease := func(addr, node string) consul.Pair {
		value, err := json.Marshal(vtepLease{Node: node})
		if err != nil {
			t.Fatal(err)
		}
		return consul.Pair{Path: consul.VTEPPath(netip.MustParseAddr(addr)), Value: value}
	}
	for name, tc := range map[string]struct {
		pool  string
		pairs []consul.Pair
		want  string
		err   string
	}{
		"first":                       {"100.64.0.0/16", nil, "100.64.0.1", ""},
		"after the last":              {"100.64.0.0/16", []consul.Pair{lease("100.64.0.1", "n2"), lease("100.64.0.9", "n3")}, "100.64.0.10", ""},
		"its own":                     {"100.64.0.0/16", []consul.Pair{lease("100.64.0.1", "n2"), lease("100.64.0.2", "n1"), lease("100.64.0.9", "n3")}, "100.64.0.2", ""},
		"its own, of another pool":    {"100.64.0.0/16", []consul.Pair{lease("100.99.0.2", "n1")}, "100.99.0.2", ""},
		"wraps":                       {"100.64.0.0/29", []consul.Pair{lease("100.64.0.1", "n2"), lease("100.64.0.6", "n3")}, "100.64.0.2", ""},
		"another pool's do not count": {"100.64.0.0/29", []consul.Pair{lease("100.99.0.5", "n2")}, "100.64.0.1", ""},
		"odd keys do not count":       {"100.64.0.0/29", []consul.Pair{{Path: "vteps/x"}, {Path: "vteps/100.64.0.300"}}, "100.64.0.1", ""},
		"a lease nobody can read":     {"100.64.0.0/29", []consul.Pair{{Path: "vteps/100.64.0.1", Value: []byte("{")}}, "100.64.0.2", ""},
		"full": {"100.64.0.0/30", []consul.Pair{lease("100.64.0.1", "n2"), lease("100.64.0.2", "n3")}, "",
			"no free VTEP address in vtep_pool 100.64.0.0/30 (2 leased): remove dead nodes with `weft node rm`, or use a larger pool"},
		"no host address": {"100.64.0.0/32", nil, "", "no free VTEP address"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := bare().pickVTEP(netip.MustParsePrefix(tc.pool), tc.pairs)
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) || err == nil && got.String() != tc.want {
				t.Errorf("pickVTEP = %s, %v, want %s %s", got, err, tc.want, tc.err)
			}
		})
	}
}

func TestSameAs(t *testing.T) {
	want := overlay.EndpointSet{Node: "n1", Network: "blue", NetworkID: "0123456789ab", Endpoints: []overlay.Endpoint{}}
	same := sameAs(want, func(s *overlay.EndpointSet) { s.Revision = 0 })
	change := func(f func(*overlay.EndpointSet)) string {
		s := want
		s.Revision = 7
		f(&s)
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, tc := range map[string]struct {
		body string
		want bool
	}{
		"another revision":  {change(func(*overlay.EndpointSet) {}), true},
		"an endpoint":       {change(func(s *overlay.EndpointSet) { s.Endpoints = []overlay.Endpoint{{ID: "e1"}} }), false},
		"another id":        {change(func(s *overlay.EndpointSet) { s.NetworkID = "ffffffffffff" }), false},
		"signed":            {strings.TrimSuffix(change(func(*overlay.EndpointSet) {}), "}") + `, "signature": "x"}`, true},
		"other white space": {"\n " + change(func(*overlay.EndpointSet) {}), true},
		"not JSON":          {"{", false},
		"nothing":           {"", false},
	} {
		if got := same([]byte(tc.body)); got != tc.want {
			t.Errorf("%s: same is %v: %s", name, got, tc.body)
		}
	}
}

func TestDefaultName(t *testing.T) {
	for _, tc := range []struct {
		id       overlay.EndpointID
		services []string
		want     string
	}{
		{"0123456789ab", nil, "0123456789ab"},
		{"0123456789ab", []string{"web"}, "web-012345"},
		{"ABCDEFGH", []string{"web", "api"}, "web-abcdef"},
		{"ab", []string{"web"}, "web-ab"},
	} {
		if got := defaultName(tc.id, tc.services); got != tc.want {
			t.Errorf("defaultName(%s, %v) = %q, want %q", tc.id, tc.services, got, tc.want)
		}
	}
}

func TestKeyedMutex(t *testing.T) {
	var k keyedMutex
	unlock, ok := k.lock("a")
	if !ok {
		t.Fatal("a free key is refused")
	}
	if _, again := k.lock("a"); again {
		t.Error("a busy key is given")
	}
	other, ok := k.lock("b")
	if !ok {
		t.Error("another key is refused")
	}
	unlock()
	other()
	if _, ok := k.lock("a"); !ok {
		t.Error("a key is refused after its end")
	}
	// However many ask, one works at a time, and somebody always does.
	var inside, worked atomic.Int32
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 200 {
				unlock, ok := k.lock("c")
				if !ok {
					continue
				}
				if inside.Add(1) != 1 {
					t.Error("two work on one key")
				}
				worked.Add(1)
				inside.Add(-1)
				unlock()
			}
		})
	}
	g.Wait()
	if worked.Load() == 0 {
		t.Error("nobody worked")
	}
}

func TestErrorCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want api.Code // empty: as it is
	}{
		{nil, ""},
		{fmt.Errorf("x: %w", consul.ErrUnavailable), api.Unavailable},
		{fmt.Errorf("x: %w", consul.ErrUnreadable), api.Unavailable},
		{apiErr(api.Conflict, "x"), api.Conflict},
		{errors.New("x"), ""},
	} {
		err := consulErr(tc.err)
		var e *api.Error
		if (tc.err == nil) != (err == nil) || tc.want != "" && (!errors.As(err, &e) || e.Code != tc.want) {
			t.Errorf("consulErr(%v) = %v, want code %q", tc.err, err, tc.want)
		}
	}
	var e *api.Error
	if err := poolErr(fmt.Errorf("x: %w", os.ErrExist)); !errors.As(err, &e) || e.Code != api.Conflict {
		t.Errorf("an address that is taken: %v", err)
	}
}
