package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"weft/pkg/lab"
)

const labName = "demo"

// demo is a lab with the program that runs in it.
type demo struct {
	lab  *lab.Lab
	self string
}

func up(ctx context.Context) error {
	began := time.Now()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bin := filepath.Dir(self)
	if err := lab.Down(ctx, labName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take the earlier demo away: %w", err)
	}
	fmt.Println("Three hosts n1, n2, n3 on this machine, each with Consul and a weft agent:")
	l, err := lab.Up(ctx, lab.Options{Name: labName, Nodes: 3, Weft: filepath.Join(bin, "weft"), Consul: filepath.Join(bin, "consul"),
		Progress: func(s string) { fmt.Println("  " + s) }})
	if err != nil {
		return err
	}
	d := &demo{lab: l, self: self}
	secret, err := d.show(ctx, "my-app", true)
	if err != nil {
		return err
	}
	plain, err := d.show(ctx, "my-plain", false)
	if err != nil {
		return err
	}
	switch {
	case secret.marked > 0 || secret.vxlan > 0 || secret.wireguard == 0:
		return fmt.Errorf("the encrypted network leaked: %d packets with the marker, %d cleartext VXLAN, %d WireGuard", secret.marked, secret.vxlan, secret.wireguard)
	case plain.marked == 0 || plain.vxlan == 0:
		return errors.New("the marker was not seen on the plain network either, so the capture proves nothing")
	}
	d.explore(time.Since(began))
	return nil
}

func (d *demo) weft(ctx context.Context, host string, args ...string) (string, error) {
	return d.lab.Output(ctx, host, append([]string{"weft"}, args...)...)
}

// show makes a network, runs the two services on it, requests every web, and returns what crossed the wire.
func (d *demo) show(ctx context.Context, network string, encrypted bool) (*wire, error) {
	args := []string{"network", "create", network}
	kind := "plain"
	if encrypted {
		args, kind = append(args, "--encrypted"), "encrypted"
	}
	fmt.Printf("\nNetwork %s, %s:\n  n1# weft %s\n", network, kind, strings.Join(args, " "))
	if _, err := d.weft(ctx, "n1", args...); err != nil {
		return nil, err
	}
	w := &wire{marker: fmt.Appendf(nil, "marker-of-%s-%d", network, os.Getpid())}
	c, err := d.lab.Capture(ctx, w.see)
	if err != nil {
		return nil, err
	}
	answers, err := d.services(ctx, network, string(w.marker))
	if _, serr := c.Stop(); err == nil {
		err = serr
	}
	if err != nil {
		return nil, err
	}
	table(answers)
	fmt.Printf("  On the underlay meanwhile: %d packets of the overlay, %d of them WireGuard, %d cleartext VXLAN; the requests' marker text was in %d.\n",
		w.frames, w.wireguard, w.vxlan, w.marked)
	return w, nil
}

// services starts 2 api and 3 web, scales them to 3 and 5, and asks after each step.
func (d *demo) services(ctx context.Context, network, marker string) ([]answer, error) {
	counts := map[string]int{}
	var all []answer
	for _, step := range []struct{ api, web int }{{2, 3}, {3, 5}} {
		for _, s := range []struct {
			name string
			want int
		}{{"api", step.api}, {"web", step.web}} {
			for counts[s.name] < s.want {
				counts[s.name]++
				if err := d.start(ctx, network, s.name, counts[s.name]); err != nil {
					return nil, err
				}
			}
		}
		got, err := d.ask(ctx, network, marker, step.web)
		if err != nil {
			return nil, err
		}
		all = append(all, got...)
	}
	return all, nil
}

func host(i int) string { return fmt.Sprintf("n%d", (i-1)%3+1) }

// start runs instance i of a service on its host.
func (d *demo) start(ctx context.Context, network, service string, i int) error {
	name := fmt.Sprintf("%s-%d", service, i)
	if i == 1 {
		fmt.Printf("  %s# weft run %s --detach --name %s --service %s -- weft-demo %s      (and so on)\n", host(i), network, name, service, service)
	}
	_, err := d.weft(ctx, host(i), "run", network, "--detach", "--name", name, "--service", service, "--",
		"/usr/bin/env", "DEMO_NAME="+name+"@"+host(i), d.self, service)
	return err
}

// answer is one request: who asked, and who answered.
type answer struct{ client, url, web, api string }

// ask requests every web three times, each from the host after the web's own.
func (d *demo) ask(ctx context.Context, network, marker string, webs int) ([]answer, error) {
	urls := map[string][]string{}
	for i := 1; i <= webs; i++ {
		u := fmt.Sprintf("http://web-%d/", i)
		urls[host(i+1)] = append(urls[host(i+1)], u, u, u)
	}
	var out []answer
	for i := 1; i <= 3; i++ {
		if len(urls[host(i)]) == 0 {
			continue
		}
		args := append([]string{"run", network, "--name", "client-" + host(i), "--", d.self, "get", marker}, urls[host(i)]...)
		text, err := d.weft(ctx, host(i), args...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) != 4 || f[3] != "marker="+marker {
				return nil, fmt.Errorf("unexpected answer %q", line)
			}
			out = append(out, answer{host(i), f[0], f[1], strings.TrimPrefix(f[2], "api=")})
		}
	}
	return out, nil
}

// table prints, per web, who asked it and which api instances it reached.
func table(answers []answer) {
	type row struct{ client, web string }
	var order []row
	apis := map[row]map[string]int{}
	for _, a := range answers {
		r := row{a.client, a.web}
		if apis[r] == nil {
			apis[r] = map[string]int{}
			order = append(order, r)
		}
		apis[r][a.api]++
	}
	tw := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "  asked from\tanswered by web\tand api")
	for _, r := range order {
		var parts []string
		for _, i := range []int{1, 2, 3} {
			name := fmt.Sprintf("api-%d@%s", i, host(i))
			if n := apis[r][name]; n > 0 {
				parts = append(parts, fmt.Sprintf("%s ×%d", name, n))
			}
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", r.client, r.web, strings.Join(parts, ", "))
	}
	if err := tw.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "demo: print table:", err)
	}
}

func (d *demo) explore(took time.Duration) {
	fmt.Printf(`
All as promised, in %.0f s. The lab is still up; explore it:
  bin/weft lab exec --name demo n1 -- weft status
  bin/weft lab exec --name demo n1 -- weft network inspect my-app
  bin/weft lab exec --name demo n2 -- weft run my-app -- getent hosts api
  bin/weft lab exec --name demo n3 -- consul kv get -recurse weft/
  make demo-down          takes it away
`, took.Seconds())
}
