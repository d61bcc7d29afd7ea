package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/pkg/api"
	"weft/pkg/lab"
)

// TestHostDies: the endpoints of a host that dies leave the answers within 10 s; the data path of the others stays, and
// names resolve all the time, also while Consul is down.
func TestHostDies(t *testing.T) {
	w := ownWorld(t, lab.Options{Nodes: 3})
	w.weft("n1", "network", "create", "die", "--encrypted") // with a dead host it cannot be taken down tidily
	var n api.Network
	w.weftJSON(&n, "n1", "network", "inspect", "die")
	for _, host := range w.Nodes() {
		w.eventually(5*time.Second, "network known on "+host, func() error {
			_, err := w.try(host, "weft", "network", "inspect", "die")
			return err
		})
	}
	asker := w.endpoint("n1", n.Name, "asker")
	a := w.endpoint("n2", n.Name, "web-2", "--service", "web").Address.Addr().String()
	b := w.endpoint("n3", n.Name, "web-3", "--service", "web").Address.Addr().String()
	w.eventually(3*time.Second, "both names on n1", func() error {
		if out := w.weft("n1", "dns", "query", "web", "--network", n.Name); !strings.Contains(out, a) || !strings.Contains(out, b) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	watch := w.watchNames("n1", "asker", asker, 10*time.Millisecond, "web.die", "web-2.die")
	// Consul away: nothing changes.
	if err := w.StopConsul(context.Background(), "consul", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	back := time.Now()
	if err := w.StartConsul(context.Background(), "consul"); err != nil {
		t.Fatal(err)
	}
	w.eventually(20*time.Second, "Consul is back", func() error {
		if st := w.status("n1"); !st.Consul.OK {
			return fmt.Errorf("%s", st.Consul.Error)
		}
		return nil
	})
	time.Sleep(3 * time.Second)
	host, err := w.Host("n2")
	if err != nil {
		t.Fatal(err)
	}
	died := time.Now()
	if err := unix.Kill(host.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(11 * time.Second)
	all := watch.stop()
	for _, c := range all[2:] { // the first are what the names were at the beginning
		if c.At.Before(died) {
			t.Errorf("while Consul was down or came back (%v): %v", c.At.Sub(back), c)
		}
	}
	d, ok := when(all, died, "web.die", b)
	t.Logf("dead host left out after %v", d)
	if !ok || d > 10*time.Second {
		t.Errorf("dead host left out after %v (%v), want at most 10 s: %v", d, ok, all)
	}
	if d, ok := when(all, died, "web-2.die"); !ok || d > 10*time.Second {
		t.Errorf("its endpoint's own name went after %v (%v)", d, ok)
	}
}

// TestPartitionNames: names that change on both sides of a partition are the same everywhere soon after it heals, and
// stay so.
func TestPartitionNames(t *testing.T) {
	w := ownWorld(t, lab.Options{Nodes: 3})
	n := w.network("part", "--encrypted")
	asker1 := w.endpoint("n1", n.Name, "asker1")
	asker2 := w.endpoint("n2", n.Name, "asker2")
	w.endpoint("n1", n.Name, "old-1", "--service", "old")
	w.endpoint("n2", n.Name, "old-2", "--service", "old")
	time.Sleep(time.Second)
	names := []string{"old.part.weft", "new.part.weft"}
	w1 := w.watchNames("n1", "asker1", asker1, 10*time.Millisecond, names...)
	w2 := w.watchNames("n2", "asker2", asker2, 10*time.Millisecond, names...)
	others := []string{"n1", "n3", "consul"}
	for _, o := range others {
		if err := w.Partition("n2", o); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(5 * time.Second)
	w.weft("n1", "detach", "old-1")
	x := w.endpoint("n1", n.Name, "new-1", "--service", "new").Address.Addr().String()
	w.weft("n2", "detach", "old-2")
	y := w.endpoint("n2", n.Name, "new-2", "--service", "new").Address.Addr().String()
	time.Sleep(25 * time.Second)
	healed := time.Now()
	for _, o := range others {
		if err := w.Heal("n2", o); err != nil {
			t.Fatal(err)
		}
	}
	var consulBack time.Duration
	w.eventually(90*time.Second, "Consul answers on n2", func() error {
		_, err := w.try("n2", "consul", "kv", "get", "weft/cluster")
		consulBack = time.Since(healed)
		return err
	})
	time.Sleep(8 * time.Second)
	one, two := w1.stop(), w2.stop()
	for side, all := range map[string][]change{"n1": one, "n2": two} {
		d, ok := when(all, healed, names[1], x, y)
		g, gone := when(all, healed.Add(-time.Minute), names[0])
		t.Logf("%s: Consul back %v after the heal; both new names after %v, old names gone after %v", side, consulBack, d, g-time.Minute)
		if !ok || !gone {
			t.Errorf("%s does not agree: %v", side, all)
			continue
		}
		if late := max(d, g-time.Minute); late > 2*time.Second {
			t.Errorf("%s agrees %v after the heal, want at most 2 s: %v", side, late, all)
		}
		last := map[string][]string{}
		for _, c := range all {
			last[c.Name] = c.Addrs
		}
		want := []string{x, y}
		slices.Sort(want)
		if !slices.Equal(last[names[1]], want) || len(last[names[0]]) != 0 {
			t.Errorf("%s does not stay so: %v", side, last)
		}
	}
}

// TestResolvers runs the resolvers that programs use against weft.
func TestResolvers(t *testing.T) {
	w := sharedWorld(t)
	n := w.network("resolvers", "--encrypted")
	a := w.endpoint("n1", n.Name, "api-1", "--service", "api", "--port", "http=8080").Address.Addr().String()
	w.endpoint("n2", n.Name, "client")
	w.eventually(2*time.Second, "the name on n2", func() error {
		if out := w.weft("n2", "dns", "query", "api", "--network", n.Name); !strings.Contains(out, a) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	have := func(t *testing.T, program string) string {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Skipf("needs %s", program)
		}
		return path
	}
	musl := sync.OnceValues(func() (string, error) { return buildMusl(t.TempDir()) })
	for _, tc := range []struct {
		name string
		argv func(t *testing.T, name string) []string
	}{
		{"glibc getent", func(t *testing.T, name string) []string { return []string{have(t, "getent"), "ahostsv4", name} }},
		{"dig", func(t *testing.T, name string) []string { return []string{have(t, "dig"), "+short", "+search", name} }},
		{"dig over TCP", func(t *testing.T, name string) []string {
			return []string{have(t, "dig"), "+tcp", "+short", "+search", name}
		}},
		{"dig 0x20 and cookies", func(t *testing.T, name string) []string {
			return []string{have(t, "dig"), "+cookie", "+short", "+search", strings.ToUpper(name)}
		}},
		{"Go", func(_ *testing.T, name string) []string { return tool("lookup", name) }},
		{"musl", func(t *testing.T, name string) []string {
			have(t, "musl-gcc")
			bin, err := musl()
			if err != nil {
				t.Fatal(err)
			}
			return []string{bin, name}
		}},
		{"Node getaddrinfo", func(t *testing.T, name string) []string {
			return []string{have(t, "node"), "-e", "require('dns').lookup(process.argv[1],{family:4},(e,a)=>{if(e)throw e;console.log(a)})", name}
		}},
		{"Node c-ares", func(t *testing.T, name string) []string {
			return []string{have(t, "node"), "-e", "require('dns').resolve4(process.argv[1]+(process.argv[1].includes('.')?'':'.resolvers.weft'),(e,a)=>{if(e)throw e;console.log(a.join())})", name}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, name := range []string{"api", "api.resolvers", "api.resolvers.weft", "tasks.api", "api-1"} {
				if out, err := w.try("n2", in("client", tc.argv(t, name))...); err != nil || !strings.Contains(out, a) {
					t.Errorf("%s is %q, %v; want %s", name, out, err, a)
				}
			}
			if tc.name != "Node c-ares" {
				if out, _ := w.try("n2", in("client", tc.argv(t, "nope.resolvers.weft"))...); strings.Contains(out, "10.") {
					t.Errorf("a name that does not exist is %q", out)
				}
			}
		})
	}
	t.Run("host", func(t *testing.T) { // n3 has no endpoint on the network
		if out := w.run("n3", have(t, "dig"), "+short", "@127.0.0.1", "-p", "8653", "api.resolvers.weft"); !strings.Contains(out, a) {
			t.Errorf("asked on the host of n3: %q", out)
		}
	})
}

// buildMusl makes a program that asks musl's resolver.
func buildMusl(dir string) (string, error) {
	src := filepath.Join(dir, "lookup.c")
	code := `#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <netinet/in.h>
int main(int c, char **v) {
	struct addrinfo hint = {.ai_family = AF_INET}, *r;
	int e = getaddrinfo(v[1], 0, &hint, &r);
	if (e) { puts(gai_strerror(e)); return 1; }
	for (; r; r = r->ai_next) puts(inet_ntoa(((struct sockaddr_in *)r->ai_addr)->sin_addr));
}
`
	if err := os.WriteFile(src, []byte(code), 0o644); err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "lookup")
	if out, err := exec.Command("musl-gcc", "-static", "-o", bin, src).CombinedOutput(); err != nil {
		return "", fmt.Errorf("musl-gcc: %w: %s", err, out)
	}
	return bin, nil
}
