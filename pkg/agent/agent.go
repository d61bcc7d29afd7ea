package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"weft/consul"
	"weft/dns"
	"weft/keys"
	"weft/keys/store"
	"weft/pkg/api"
	"weft/pkg/apiserver"
	"weft/pkg/config"
	"weft/pkg/engine/control"
	"weft/pkg/kernel"
	"weft/pkg/kstate"
	"weft/pkg/ledger"
	"weft/pkg/netns"
	"weft/pkg/overlay"
	"weft/pkg/plan"
	"weft/pkg/reconcile"
	"weft/pkg/wireguard"
)

// Options is what an Agent is made from.
type Options struct {
	Config  config.Config
	Log     *slog.Logger
	Version string
	// Executable is the weft binary that runs the engine; empty means the running one.
	Executable string
	// Reload, when it delivers, replaces the settings that can change while the agent runs; nil for never.
	Reload <-chan config.Config
	// Level, when not nil, follows the setting log.level.
	Level *slog.LevelVar
	// LeaveOnStop makes the end of Run take the data path and data_dir with it.
	LeaveOnStop bool
	// Ready is called once, when the local API answers and, if this node has joined before, the data path is kept.
	Ready func()
}

// Agent is the node daemon. Its exported methods implement the local API and are safe for concurrent use.
type Agent struct {
	opt      Options
	log      *slog.Logger
	boot     string
	lock     *os.File
	keys     *store.Store
	identity keys.Identity
	ring     *keyring
	policy   ledger.Policy
	under    underlay
	backend  wireguard.Backend
	kernel   *kernel.Kernel
	engine   *control.Client // nil when the backend has no data path of its own
	consul   *consul.Client
	loop     *reconcile.Loop
	dns      *dns.Server
	names    *listeners

	builder dns.Builder // used with mu held

	publishKick chan struct{}
	catalogKick chan struct{}
	watchKick   chan struct{}
	saveKick    chan struct{}
	assertKick  chan struct{}
	rotateKick  chan struct{}
	pairKick    chan struct{}
	trustKick   chan struct{}
	claimKick   chan struct{}
	ledgerKick  chan struct{}

	// consulAway says that Consul's local agent answers, but not its servers.
	consulAway atomic.Bool

	snap atomic.Pointer[overlay.Snapshot]
	cfg  atomic.Pointer[config.Config]

	mu     sync.Mutex // guards what follows
	state  *localState
	ledger *ledger.Ledger
	// unsaved says that the ledger is newer than the file.
	unsaved bool
	pools   map[string]*pool
	// synced holds, per own path, the revision that Consul is known to hold.
	synced map[string]uint64
	// readAt holds, per path, the revision at which a record was read last, refused or not.
	readAt map[string]uint64
	// delivered says which sources have delivered once since the agent started.
	delivered map[string]bool
	watches   map[string]*netWatch
	following map[string]int    // attaches that go on, by network
	paths     map[string]path   // what the last probe found, by node
	notes     map[string]string // standing problems of the agent itself, by subject
	trouble   []overlay.Problem // found while reconciling
	// leases holds the ages of the leases that disputed claims rest on.
	leases map[plan.Claim]uint64
	// carried says which key generation carries the traffic to each peer; rotateAsked that a change of keys is to begin.
	carried     map[string]int
	rotateAsked bool
	goodbye     bool // the records say that this node leaves; the data path still stands
	leaving     bool // the data path is to be taken down
	leftAt      time.Time
	purge       bool
	holdUntil   time.Time     // no new leases before
	published   chan struct{} // closed and replaced after each publication
	joined      bool
	poolRun     func(*pool) // starts a pool's maintenance; set by Run
	// hostAsked is when the host was first asked about a network that it has no endpoints on.
	hostAsked map[string]time.Time
	// dead are the nodes that are left out of the names; replaced, never changed.
	dead map[string]bool
	// suspects are the nodes whose host Consul's gossip finds dead; replaced, never changed.
	suspects map[string]bool
	// failing are the services that pass no check, as last logged.
	failing []string
	// checkOutput is what each endpoint's check said last.
	checkOutput map[overlay.EndpointID]string

	// floors holds, per own path, the highest revision that Consul was seen to hold; learned says that it was looked at.
	floors  map[string]uint64
	learned bool

	publishing   sync.Mutex // held by publish
	savingLedger sync.Mutex // held by keepLedger; taken before mu
	// attaching serialises attach and detach per endpoint id.
	attaching keyedMutex
	left      chan struct{} // closed when leave has taken everything down
}

// New prepares an agent: it loads or makes keys and state, and finds the underlay and the WireGuard backend. Nothing on
// the host is changed but data_dir. The caller must call Run, or Close.
func New(ctx context.Context, opt Options) (*Agent, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("weft agent needs root: it makes network namespaces and devices; run it with sudo or as a systemd service")
	}
	if err := overlay.ValidateName(overlay.NodeName, opt.Config.NodeName); err != nil {
		return nil, fmt.Errorf("%w: set node_name", err)
	}
	opt.Config.NodeName = overlay.CanonicalName(opt.Config.NodeName)
	a := &Agent{opt: opt, log: opt.Log, pools: map[string]*pool{}, synced: map[string]uint64{}, readAt: map[string]uint64{}, delivered: map[string]bool{},
		watches: map[string]*netWatch{}, notes: map[string]string{}, paths: map[string]path{}, following: map[string]int{}, floors: map[string]uint64{}, hostAsked: map[string]time.Time{}, checkOutput: map[overlay.EndpointID]string{}, catalogKick: make(chan struct{}, 1),
		publishKick: make(chan struct{}, 1),
		watchKick:   make(chan struct{}, 1), saveKick: make(chan struct{}, 1), assertKick: make(chan struct{}, 1), ledgerKick: make(chan struct{}, 1), rotateKick: make(chan struct{}, 1),
		pairKick: make(chan struct{}, 1), trustKick: make(chan struct{}, 1), claimKick: make(chan struct{}, 1), left: make(chan struct{}), published: make(chan struct{})}
	a.cfg.Store(&opt.Config)
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Agent) open(ctx context.Context) error {
	cfg := a.opt.Config
	if err := netns.CheckShared(); err != nil {
		return err
	}
	var err error
	if a.boot, err = bootID(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data_dir: %w", err)
	}
	if a.lock, err = lockDir(cfg.DataDir); err != nil {
		return err
	}
	if a.state, err = loadState(cfg.DataDir, cfg.NodeName); err != nil {
		return err
	}
	if a.state.Keys.Since.IsZero() {
		a.state.Keys.Since = time.Now().UTC()
	}
	if err := a.openKeys(cfg); err != nil {
		return err
	}
	if a.policy, err = trustPolicy(cfg.Trust); err != nil {
		return err
	}
	a.policy.Self = a.identity.Public()
	voidChecks(cfg.DataDir)
	if a.ledger, err = loadLedger(cfg.DataDir, a.policy, a.log); err != nil {
		return err
	}
	if a.ledger != nil && a.ledger.Cluster() != a.state.Cluster {
		a.ledger = nil
	}
	if a.ledger != nil {
		a.ledger.Self(cfg.NodeName, a.identity.Public())
	}
	if a.under, err = findUnderlay(cfg.Advertise); err != nil {
		return err
	}
	if err := a.openKernel(ctx, cfg); err != nil {
		return err
	}
	a.consul, err = consul.New(consulConfig(cfg, a.log))
	if err != nil {
		return err
	}
	a.dns = dns.New(dns.Config{Log: a.log, Upstreams: a.upstreams, Consul: cfg.DNS.Consul, Follow: a.follow})
	a.names = &listeners{agent: a, open: map[overlay.NetworkID]*listener{}}
	a.loop = reconcile.New(reconcile.Config{Want: a.want, Observe: a.observe, Apply: a.apply, After: a.after, Log: a.log})
	a.dropForeignBoot()
	a.refresh()
	return nil
}

// openKeys loads the keys of the live generations, or makes the first ones. Those of generations that are not live are
// what a crash during a change of keys left.
func (a *Agent) openKeys(cfg config.Config) error {
	secret, err := readSecret(cfg.Trust.SecretFile)
	if err != nil {
		return err
	}
	if a.keys, err = store.Open(filepath.Join(cfg.DataDir, "keys")); err != nil {
		return err
	}
	if a.identity, err = a.keys.Identity(); err != nil {
		return err
	}
	a.ring = newKeyring(a.keys)
	for _, g := range a.state.Keys.Live {
		if err := a.ring.load(g, secret); err != nil {
			return err
		}
	}
	return a.ring.keep(a.state.Keys.Live)
}

func (a *Agent) openKernel(ctx context.Context, cfg config.Config) (err error) {
	engine := wireguard.EngineConfig{Executable: a.opt.Executable, LogFile: filepath.Join(cfg.DataDir, "engine.log"), Log: a.log}
	if a.backend, err = wireguard.Probe(ctx, string(cfg.WireGuard.Backend), engine); err != nil {
		return err
	}
	a.log.Info("wireguard backend chosen", "backend", a.backend.Name())
	kcfg := kernel.Config{Log: a.log, Backend: a.backend, Keyring: a.ring.private, PSK: a.ring.preshared}
	if a.backend.Name() == wireguard.EngineName {
		a.engine = control.NewClient(kstate.WGName(1))
		kcfg.Overlay = a.engine
	}
	a.kernel, err = kernel.New(kcfg)
	return err
}

// lockDir makes sure that one agent at a time works with a data_dir. The lock goes with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "agent.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data_dir: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another weft agent uses data_dir %s: stop it first, or set another data_dir", dir), f.Close())
	}
	return f, nil
}

// Close releases what New opened. The data path stays.
func (a *Agent) Close() error {
	var errs []error
	if a.kernel != nil {
		errs = append(errs, a.kernel.Close())
	}
	if a.lock != nil {
		errs = append(errs, a.lock.Close())
	}
	return errors.Join(errs...)
}

// Run runs the agent until ctx ends or the node has left. The data path outlives it.
func (a *Agent) Run(ctx context.Context) error {
	server, err := apiserver.New(apiserver.Config{Socket: a.opt.Config.Socket, Group: "weft", Log: a.log, Networks: a, Endpoints: a,
		Checks: a, Processes: a, Names: a, Nodes: a, System: a, Keys: a, Trust: a})
	if err != nil {
		return err
	}
	stop := ctx
	ctx, cancel := context.WithCancel(context.WithoutCancel(stop))
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	task := func(name string, run func(context.Context) error) {
		g.Go(func() error {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	a.mu.Lock()
	a.poolRun = func(p *pool) { task("addresses of "+p.network.Name, p.Run) }
	a.mu.Unlock()
	a.raiseLimits()
	a.adoptPools()
	task("local api", server.Run)
	task("reconcile", a.loop.Run)
	task("join", a.join)
	task("publish", a.publishLoop)
	task("watches", a.manageWatches)
	task("processes", a.reap)
	task("state", a.saveChanges)
	task("records", a.saveLedgers)
	task("checks", a.reportChecks)
	task("probes", a.probeLoop)
	task("assert", a.assertLoop)
	task("key agreement", a.pairLoop)
	task("rotation", a.rotateLoop)
	task("trust", a.trustLoop)
	task("claims", a.claimLoop)
	task("guard", a.guardLoop)
	task("recheck", a.recheck)
	task("firewall", a.watchFirewall)
	task("queued detaches", a.replayDetaches)
	task("cni configurations", a.syncCNI)
	task("health", a.runChecks)
	task("catalog", a.catalogLoop)
	task("dead nodes", a.watchDead)
	task("rejoin", a.rejoin)
	task("exchange", a.exchange)
	task("reload", a.reload)
	if a.engine != nil {
		task("engine", func(ctx context.Context) error { return a.engine.Watch(ctx, a.loop.Kick) })
	}
	task("stop", func(ctx context.Context) error {
		defer cancel()
		select {
		case <-ctx.Done():
		case <-a.left:
		case <-stop.Done():
			if a.opt.LeaveOnStop {
				return a.Leave(ctx, api.LeaveSpec{Purge: true, Force: true})
			}
		}
		return nil
	})
	a.loop.Kick()
	select {
	case <-server.Ready():
		if a.opt.Ready != nil {
			a.opt.Ready()
		}
	case <-ctx.Done():
	}
	err = g.Wait()
	a.names.closeAll()
	return errors.Join(err, a.finish())
}

// finish writes what is only kept in memory, and removes it all after a purge.
func (a *Agent) finish() error {
	if err := a.keepLedger(); err != nil {
		a.log.Error("accepted records are not kept over a restart", "err", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.purge {
		return os.RemoveAll(a.opt.Config.DataDir)
	}
	return a.saveLocked()
}

func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// wait sleeps for d, or until ctx ends: then it returns false.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
