package rotate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func after(d time.Duration) time.Time { return now.Add(d) }

func live(gens ...int) State { return State{Live: gens, Since: now} }

func leaving(old, next int) State { return State{Live: []int{old, next}, Leaving: true, Since: now} }

// peer is one whose record holds some generations; sessions says of each "fresh", "proved" (once) or nothing.
func peer(name string, published []int, sessions map[int]string) Peer {
	p := Peer{Name: name, Published: published, Sessions: map[int]Session{}}
	for g, how := range sessions {
		p.Sessions[g] = Session{Proved: true, Fresh: how == "fresh"}
	}
	return p
}

func TestNext(t *testing.T) {
	both := []int{1, 2}
	for name, tc := range map[string]struct {
		s       State
		at      time.Duration
		every   time.Duration
		asked   bool
		broken  string
		peers   []Peer
		want    State
		problem string
	}{
		"nothing to do":       {s: live(1), peers: []Peer{peer("b", []int{1}, nil)}, want: live(1)},
		"asked":               {s: live(1), asked: true, peers: []Peer{peer("b", []int{1}, nil)}, want: live(1, 2)},
		"asked, alone":        {s: live(7), asked: true, want: live(7, 8)},
		"not yet time":        {s: live(1), every: time.Hour, at: 53 * time.Minute, want: live(1)},
		"time":                {s: live(1), every: time.Hour, at: 67 * time.Minute, want: State{Live: both, Since: after(67 * time.Minute)}},
		"another has begun":   {s: live(1), peers: []Peer{peer("b", both, nil)}, want: live(1, 2)},
		"another is far off":  {s: live(1), peers: []Peer{peer("b", []int{1, 1 << 30}, nil)}, want: live(1)},
		"back from long away": {s: live(1), peers: []Peer{peer("b", []int{6}, nil), peer("c", []int{6}, nil)}, want: live(6)},
		"same device":         {s: live(1), peers: []Peer{peer("b", []int{7}, nil)}, want: live(7)},
		"two away together":   {s: live(1), peers: []Peer{peer("b", []int{1}, nil), peer("c", []int{7}, nil)}, want: live(1, 6)},
		"two away, other device": {s: live(1), peers: []Peer{peer("b", []int{1}, nil), peer("c", []int{6}, nil)},
			want: live(1, 6)},

		"nobody to wait for":    {s: live(1, 2), want: leaving(1, 2)},
		"not published there":   {s: live(1, 2), peers: []Peer{peer("b", []int{1}, map[int]string{1: "fresh"})}, want: live(1, 2)},
		"not proved":            {s: live(1, 2), peers: []Peer{peer("b", both, map[int]string{1: "fresh"})}, want: live(1, 2)},
		"proved":                {s: live(1, 2), peers: []Peer{peer("b", both, map[int]string{1: "fresh", 2: "fresh"})}, want: leaving(1, 2)},
		"one of two":            {s: live(1, 2), peers: []Peer{peer("b", both, map[int]string{2: "fresh"}), peer("c", both, nil)}, want: live(1, 2)},
		"has only the newer":    {s: live(1, 2), peers: []Peer{peer("b", []int{2}, nil)}, want: leaving(1, 2)},
		"silent, early":         {s: live(1, 2), at: Patience - 1, peers: []Peer{peer("b", []int{1}, nil)}, want: live(1, 2), problem: "waits for b"},
		"silent, late":          {s: live(1, 2), at: Patience, peers: []Peer{peer("b", []int{1}, nil)}, want: State{Live: both, Leaving: true, Since: after(Patience)}},
		"agent still, late":     {s: live(1, 2), at: Patience * 100, peers: []Peer{peer("b", []int{1}, map[int]string{1: "fresh"})}, want: live(1, 2), problem: "waits for b"},
		"straggler":             {s: live(1, 2), at: Straggler, peers: []Peer{peer("b", []int{1}, nil), peer("c", []int{2}, map[int]string{2: "fresh"})}, want: State{Live: both, Leaving: true, Since: after(Straggler)}},
		"port closed":           {s: live(1, 2), at: Deadline, peers: []Peer{peer("b", both, map[int]string{1: "fresh"})}, want: State{Live: []int{1}, Since: now, NotBefore: after(Deadline + Again)}, problem: "open both wireguard.ports"},
		"port closed, to some":  {s: live(1, 2), at: Deadline, peers: []Peer{peer("b", both, map[int]string{1: "fresh"}), peer("c", both, map[int]string{2: "fresh"})}, want: live(1, 2), problem: "waits for b"},
		"nobody had the chance": {s: live(1, 2), at: Deadline, peers: []Peer{peer("b", []int{1}, map[int]string{1: "fresh"})}, want: live(1, 2), problem: "waits for b"},
		"no device yet":         {s: live(1, 2), broken: "port in use", want: live(1, 2), problem: "port in use"},
		"no device":             {s: live(1, 2), broken: "port in use", at: Deadline, want: State{Live: []int{1}, Since: now, NotBefore: after(Deadline + Again)}, problem: "port in use"},

		"under way":               {s: leaving(1, 2), at: Linger - 1, want: leaving(1, 2)},
		"all let go":              {s: leaving(1, 2), at: Linger, peers: []Peer{peer("b", []int{2}, nil)}, want: State{Live: []int{2}, Since: after(Linger)}},
		"one still needs it":      {s: leaving(1, 2), at: Linger, peers: []Peer{peer("b", both, nil)}, want: leaving(1, 2)},
		"needed for long":         {s: leaving(1, 2), at: time.Hour, peers: []Peer{peer("b", both, map[int]string{1: "fresh"})}, want: leaving(1, 2), problem: "needed by b"},
		"silent since":            {s: leaving(1, 2), at: Patience, peers: []Peer{peer("b", []int{1}, map[int]string{1: "proved"})}, want: State{Live: []int{2}, Since: after(Patience)}},
		"clock set back":          {s: leaving(1, 2), at: -time.Hour, want: State{Live: []int{2}, Since: after(-time.Hour)}},
		"third begun while still": {s: leaving(1, 2), at: Linger, peers: []Peer{peer("b", []int{2, 3}, nil)}, want: State{Live: []int{2}, Since: after(Linger)}},
	} {
		t.Run(name, func(t *testing.T) {
			step := Next(tc.s, World{Node: "a", Now: after(tc.at), Peers: tc.peers, Every: tc.every, Asked: tc.asked, Broken: tc.broken})
			got := step.State
			got.Why = ""
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (step.Event == "") != cmp.Equal(tc.s, step.State) {
				t.Errorf("event %q does not fit", step.Event)
			}
			if tc.problem == "" && step.Problem != "" || !strings.Contains(step.Problem, tc.problem) {
				t.Errorf("problem %q, want %q", step.Problem, tc.problem)
			}
			if !step.State.Valid() {
				t.Errorf("%+v is not valid", step.State)
			}
		})
	}
}

func TestAbandonedIsTriedAgain(t *testing.T) {
	s := State{Live: []int{1}, Since: now, NotBefore: after(Again), Why: "it was abandoned"}
	w := World{Node: "a", Now: now, Peers: []Peer{peer("b", []int{1, 2}, nil)}}
	if step := Next(s, w); step.State.Changing() || !strings.Contains(step.Problem, "abandoned") {
		t.Errorf("at once: %+v", step)
	}
	w.Now = after(Again)
	if step := Next(s, w); !step.State.Changing() {
		t.Errorf("later: %+v", step)
	}
	w.Now, w.Asked = now, true
	if step := Next(s, w); !step.State.Changing() {
		t.Errorf("asked: %+v", step)
	}
}

// TestMesh walks a mesh of nodes in random order, with records that come late, agents that stop and crash. At no moment
// may two nodes lack a generation that both have a device for and that carries the one's traffic to the other.
func TestMesh(t *testing.T) {
	for seed := range uint64(300) {
		m := newMesh(2+int(seed%4), rand.New(rand.NewPCG(seed, 1)))
		for round := range 3 {
			m.nodes[m.rand.IntN(len(m.nodes))].asked = true
			for range 400 {
				m.step(t)
			}
			for range 60 { // everybody awake, until quiet
				for i := range m.nodes {
					m.turn(t, i)
				}
				m.now = m.now.Add(200 * time.Millisecond)
			}
			for i, n := range m.nodes {
				if n.state.Changing() || n.state.Newest() != m.nodes[0].state.Newest() || n.state.Newest() < round+2 {
					t.Fatalf("seed %d, round %d: node %d ends as %+v, the first as %+v", seed, round, i, n.state, m.nodes[0].state)
				}
			}
		}
	}
}

type mesh struct {
	nodes []*meshNode
	rand  *rand.Rand
	now   time.Time
}

type meshNode struct {
	state   State // on disk
	devices []int
	record  []int         // in the store
	seen    map[int][]int // what it has read of others' records
	carried map[int]int
	asked   bool
}

func newMesh(n int, r *rand.Rand) *mesh {
	m := &mesh{rand: r, now: now}
	for range n {
		m.nodes = append(m.nodes, &meshNode{state: First(now), devices: []int{1}, record: []int{1}, seen: map[int][]int{}, carried: map[int]int{}})
	}
	for i := range n {
		for j := range n {
			m.nodes[i].seen[j] = []int{1}
		}
	}
	return m
}

// step is one node's turn, or a record that arrives, or time that passes.
func (m *mesh) step(t *testing.T) {
	i := m.rand.IntN(len(m.nodes))
	switch m.rand.IntN(4) {
	case 0:
		m.turn(t, i)
	case 1:
		j := m.rand.IntN(len(m.nodes))
		m.nodes[i].seen[j] = m.nodes[j].record
	case 2:
		m.now = m.now.Add(time.Duration(m.rand.IntN(300)) * time.Millisecond)
	default:
		m.part(i) // a pass without a decision: as after a crash
	}
	m.check(t)
}

// turn is a whole turn of one node's loops.
func (m *mesh) turn(t *testing.T, i int) {
	n := m.nodes[i]
	for j := range m.nodes {
		n.seen[j] = m.nodes[j].record
	}
	peers := m.peers(i)
	step := Next(n.state, World{Node: fmt.Sprint(i), Now: m.now, Peers: peers, Asked: n.asked})
	if step.State.Leaving && !n.state.Leaving {
		m.part(i) // routes have moved before it is said
	}
	if len(step.State.Live) > 2 || !step.State.Valid() {
		t.Fatalf("node %d: %+v", i, step.State)
	}
	if step.State.Changing() {
		n.asked = false
	}
	n.state = step.State
	if m.rand.IntN(5) == 0 {
		return // crash: only the state is kept
	}
	if len(n.state.Live) > len(n.devices) {
		m.part(i)
	}
	n.record = slices.Clone(n.state.Published())
	if m.rand.IntN(5) == 0 {
		return
	}
	m.part(i)
	m.check(t)
}

// part is what follows from the state without a decision: routes, devices.
func (m *mesh) part(i int) {
	n := m.nodes[i]
	carried := Carried(n.state, m.peers(i))
	for j := range m.nodes {
		common := slices.DeleteFunc(slices.Clone(n.state.Live), func(g int) bool { return !slices.Contains(n.seen[j], g) })
		if g := carried[fmt.Sprint(j)]; g != 0 {
			n.carried[j] = g
		} else if len(common) > 0 {
			n.carried[j] = common[0]
		}
	}
	n.devices = slices.Clone(n.state.Live)
}

// peers is what node i knows: a session is proved where both have the device and know each other's key.
func (m *mesh) peers(i int) (out []Peer) {
	n := m.nodes[i]
	for j, o := range m.nodes {
		if i == j {
			continue
		}
		p := Peer{Name: fmt.Sprint(j), Published: n.seen[j], Sessions: map[int]Session{}}
		for _, g := range n.devices {
			if slices.Contains(o.devices, g) && slices.Contains(n.seen[j], g) && slices.Contains(o.seen[i], g) {
				p.Sessions[g] = Session{Proved: true, Fresh: true}
			}
		}
		out = append(out, p)
	}
	return out
}

// check demands that what each node sends arrives: the device that carries it is there on both sides.
func (m *mesh) check(t *testing.T) {
	t.Helper()
	for i, n := range m.nodes {
		for j, o := range m.nodes {
			g := n.carried[j]
			if i == j || g == 0 {
				continue
			}
			if !slices.Contains(n.devices, g) || !slices.Contains(o.devices, g) {
				t.Fatalf("node %d sends to %d by generation %d; devices %v and %v, states %+v and %+v", i, j, g, n.devices, o.devices, n.state, o.state)
			}
		}
	}
}

func TestCarried(t *testing.T) {
	got := Carried(live(1, 2), []Peer{
		peer("both", []int{1, 2}, map[int]string{1: "fresh", 2: "fresh"}),
		peer("new port dead", []int{1, 2}, map[int]string{1: "fresh", 2: "proved"}),
		peer("quiet", []int{1, 2}, map[int]string{1: "proved", 2: "proved"}),
		peer("unproved", []int{1, 2}, map[int]string{1: "fresh"}),
		peer("gone from its record", []int{2}, map[int]string{1: "fresh"}),
		peer("never", []int{1, 2}, nil),
	})
	if diff := cmp.Diff(map[string]int{"both": 2, "new port dead": 1, "quiet": 2, "unproved": 1}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJitter(t *testing.T) {
	seen := map[time.Duration]bool{}
	for i := range 50 {
		d := jittered(time.Hour, fmt.Sprint(i), 1)
		if d < 54*time.Minute || d > 66*time.Minute || d != jittered(time.Hour, fmt.Sprint(i), 1) {
			t.Errorf("jittered to %v", d)
		}
		seen[d] = true
	}
	if len(seen) < 45 {
		t.Errorf("only %d different times", len(seen))
	}
}
