package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"weft/pkg/kstate"
	"weft/pkg/netns"
	"weft/pkg/wireguard"
)

// Scope names what Observe reports although it carries no mark.
type Scope struct {
	// Sysctls to read; their Value is ignored. One that the kernel does not have is left out of the answer.
	Sysctls []kstate.Sysctl
}

// Observe reads everything of weft from the kernel, in the form in which pkg/plan wants it:
//
//	weft-t, weft-n-*   all there is, but for what the kernel makes by itself
//	weft-e-*           the interface with our alias, its addresses, our routes through it, and whether lo is up
//	host               interfaces weftx* with our alias, their addresses, routes of our protocol, tables named weft, and
//	                   rules of ours in other programs' chains
//
// An error voids the answer: nothing is reported as absent that could not be read. What vanishes meanwhile is absent.
func (k *Kernel) Observe(ctx context.Context, scope Scope) (*kstate.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := &observer{k: k, ctx: ctx, state: kstate.NewState()}
	if err := o.open(); err != nil {
		return nil, fmt.Errorf("observe kernel: %w", err)
	}
	var err error
	if o.taps, err = k.readTAPs(o.byName[kstate.Transit]); err != nil {
		return nil, fmt.Errorf("observe engine: %w", err)
	}
	for _, v := range o.views {
		err := o.observe(v)
		if errors.Is(err, fs.ErrNotExist) && !o.exists(v.name) {
			o.forget(v.name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("observe namespace %s: %w", show(v.name), err)
		}
	}
	if err := o.sysctls(scope.Sysctls); err != nil {
		return nil, err
	}
	devices, peers, _, err := k.wireGuard()
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		o.put(kstate.Transit, d)
	}
	for _, p := range peers {
		o.put(kstate.Transit, p)
	}
	return o.state, nil
}

// wireGuard reads the WireGuard devices, if there is a namespace that they could be in.
func (k *Kernel) wireGuard() ([]kstate.WGDevice, []kstate.WGPeer, []wireguard.PeerStats, error) {
	if ok, err := netns.Exists(kstate.Transit); !ok || err != nil {
		return nil, nil, nil, err
	}
	return k.devices.Observe(k.now())
}

// observer is one pass. A view is what it has read of one namespace's links.
type observer struct {
	k      *Kernel
	ctx    context.Context
	state  *kstate.State
	views  []*view
	byName map[string]*view
	taps   taps
}

type view struct {
	*space
	links   []rawLink
	byIndex map[int]*rawLink
}

// open lists the links of all our namespaces, which the rest refers to.
func (o *observer) open() error {
	names, err := netns.Names()
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !ours(n) && !endpoint(n) })
	names = append([]string{kstate.Host}, names...)
	o.byName = map[string]*view{}
	keep := map[string]bool{}
	for _, name := range names {
		v, err := o.k.view(o.ctx, name)
		if errors.Is(err, fs.ErrNotExist) && !o.exists(name) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list links of %s: %w", show(name), err)
		}
		o.views = append(o.views, v)
		o.byName[name] = v
		keep[name] = true
	}
	o.k.spaces.keep(keep)
	return nil
}

// view reads the links of one namespace.
func (k *Kernel) view(ctx context.Context, name string) (*view, error) {
	sp, err := k.spaces.get(name)
	if err != nil {
		return nil, err
	}
	links, err := sp.links(ctx)
	if err != nil {
		return nil, err
	}
	v := &view{space: sp, links: links, byIndex: map[int]*rawLink{}}
	for i := range links {
		v.byIndex[links[i].index] = &links[i]
	}
	return v, nil
}

func ours(ns string) bool {
	return ns == kstate.Transit || strings.HasPrefix(ns, kstate.NetworkPrefix)
}

func endpoint(ns string) bool { return strings.HasPrefix(ns, kstate.EndpointPrefix) }

func (o *observer) exists(ns string) bool {
	if ns == kstate.Host {
		return true
	}
	ok, err := netns.Exists(ns)
	return ok || err != nil
}

// forget takes back what was put for a namespace that vanished meanwhile.
func (o *observer) forget(ns string) {
	for key := range o.state.Entries {
		if key.NS == ns {
			delete(o.state.Entries, key)
		}
	}
}

// put adds an item to the group that its namespace tells; pkg/plan decides what cannot be told here.
func (o *observer) put(ns string, it kstate.Item) {
	group := ""
	if id, ok := strings.CutPrefix(ns, kstate.NetworkPrefix); ok {
		group = id
	} else if ns == kstate.Transit {
		group = kstate.TransitGroup
	}
	o.state.Put(group, it)
}

// observe reads one namespace; the links of all of them are known by now.
func (o *observer) observe(v *view) error {
	if v.name != kstate.Host {
		o.put(v.name, kstate.NetNS{Name: v.name})
	}
	if ours(v.name) {
		if err := o.ownLinks(v); err != nil {
			return err
		}
		return o.own(v)
	}
	return o.foreign(v)
}

// own reads a namespace that is wholly ours.
func (o *observer) own(v *view) error {
	all := func(*rawLink) bool { return true }
	steps := []func(*view) error{
		func(v *view) error { return o.addrs(v, all) },
		func(v *view) error { return o.routes(v, 4, all) },
		func(v *view) error { return o.routes(v, 6, all) },
		o.neighs, o.fdb, o.tables,
	}
	for _, step := range steps {
		if err := step(v); err != nil {
			return err
		}
	}
	return nil
}

// foreign reads a namespace in which only some things are ours: the host's and the endpoints'.
func (o *observer) foreign(v *view) error {
	host := v.name == kstate.Host
	mine := func(l *rawLink) bool {
		return strings.HasPrefix(l.alias, kstate.Mark+":") && (!host || strings.HasPrefix(l.name, kstate.LegPrefix)) &&
			o.belongs(v, l)
	}
	some := false
	for i := range v.links {
		l := &v.links[i]
		if l.up && (mine(l) || endpoint(v.name) && l.name == "lo") {
			o.put(v.name, kstate.Up{NS: v.name, Link: l.name})
		}
		some = some || mine(l)
	}
	if some {
		if err := o.addrs(v, mine); err != nil {
			return err
		}
		if err := o.routes(v, 4, mine); err != nil {
			return err
		}
	}
	if host {
		return o.tables(v)
	}
	return nil
}

// belongs tells whose interface it is when one namespace is known by several names, because a container is on several
// networks: that of the name which the near end's name calls for.
func (o *observer) belongs(v *view, l *rawLink) bool {
	if !endpoint(v.name) {
		return true
	}
	near := "e" + strings.TrimPrefix(v.name, kstate.EndpointPrefix)
	other := false
	for _, n := range o.views {
		if n.name == v.name || !ours(n.name) {
			continue
		}
		for i := range n.links {
			if e := &n.links[i]; e.kind == "veth" && e.peer == l.index && e.index == l.peer {
				if e.name == near {
					return true
				}
				// Is it another name's? Only if that name leads to the same namespace.
				if w := o.byName[kstate.EndpointPrefix+strings.TrimPrefix(e.name, "e")]; w != nil && w.inode == v.inode {
					other = true
				}
			}
		}
	}
	return !other
}

func (o *observer) sysctls(list []kstate.Sysctl) error {
	byNS := map[string][]string{}
	for _, s := range list {
		if s.NS == kstate.Host || o.byName[s.NS] != nil {
			byNS[s.NS] = append(byNS[s.NS], s.Path)
		}
	}
	for ns, paths := range byNS {
		err := netns.Do(ns, func() error {
			for _, p := range paths {
				value, err := readSysctl(p)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return err
				}
				o.put(ns, kstate.Sysctl{NS: ns, Path: p, Value: value})
			}
			return nil
		})
		if err != nil && (!errors.Is(err, fs.ErrNotExist) || o.exists(ns)) {
			return fmt.Errorf("observe namespace %s: %w", show(ns), err)
		}
	}
	return nil
}

// sysctlFile is where a kernel parameter is; /proc/sys/net shows the namespace of the thread that looks.
func sysctlFile(path string) (string, error) {
	if !filepath.IsLocal(path) {
		return "", fmt.Errorf("kernel parameter %q: not a path below /proc/sys", path)
	}
	return filepath.Join("/proc/sys", path), nil
}

func readSysctl(path string) (string, error) {
	f, err := sysctlFile(path)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(f)
	return strings.TrimSpace(string(b)), err
}
