package rotate

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// The clocks of a change, by the wall clock, because they go on over a restart of the agent.
const (
	// Patience is how long peers that show no sign of life hold up a change.
	Patience = 90 * time.Second
	// Straggler is that time where others have finished: then this node is late, and the way to them comes first.
	Straggler = 5 * time.Second
	// Deadline is when a change that nobody has answered on the new port is abandoned.
	Deadline = 60 * time.Second
	// Again is how long after that another one is tried.
	Again = 10 * time.Minute
	// Linger is how long a device stays after its last user has said that it is: packets may be under way.
	Linger = 500 * time.Millisecond
	// maxJump bounds how far another node's record can move this one ahead: a generation is a day, or a command.
	maxJump = 1 << 16
)

// State is where a node stands. It is kept on disk.
type State struct {
	// Live are the generations that have a device here, ascending; one, or two during a change.
	Live []int `json:"live"`
	// Leaving says that the older one is no longer in this node's record: all its traffic is carried by the newer.
	Leaving bool `json:"leaving,omitempty"`
	// Since is when the state was reached.
	Since time.Time `json:"since,omitzero"`
	// NotBefore is when another change may begin after one was abandoned; Why says what was wrong with that one.
	NotBefore time.Time `json:"notBefore,omitzero"`
	Why       string    `json:"why,omitempty"`
}

// First is the state of a node that has never changed its keys.
func First(now time.Time) State { return State{Live: []int{1}, Since: now} }

// Newest is the newest live generation.
func (s State) Newest() int { return s.Live[len(s.Live)-1] }

// Changing reports whether two generations are live.
func (s State) Changing() bool { return len(s.Live) == 2 }

// Published are the generations that this node's record holds.
func (s State) Published() []int {
	if s.Leaving {
		return s.Live[1:]
	}
	return s.Live
}

// Valid reports whether s is one that Next makes.
func (s State) Valid() bool {
	switch len(s.Live) {
	case 1:
		return s.Live[0] >= 1 && !s.Leaving
	case 2:
		return s.Live[0] >= 1 && s.Live[0] < s.Live[1] && other(s.Live[0], s.Live[1])
	}
	return false
}

// other reports whether two generations have different devices.
func other(a, b int) bool { return (a-b)%2 != 0 }

// Session is what the device of a generation says about a peer.
type Session struct {
	// Proved: a handshake was completed; Fresh: the last one is young enough for its session to be live.
	Proved, Fresh bool
}

// Peer is another present node.
type Peer struct {
	Name string
	// Published are the generations in its record.
	Published []int
	// Sessions by generation.
	Sessions map[int]Session
}

// World is what a decision rests on beside the state.
type World struct {
	Node  string
	Now   time.Time
	Peers []Peer
	// Every is the time between changes, 0 for never by themselves; Asked asks for one now.
	Every time.Duration
	Asked bool
	// Broken says why the newest generation's device cannot be used, empty when it can.
	Broken string
}

// Step is the outcome of a decision.
type Step struct {
	State State
	// Event is one line for the log when the state changed; Warn says that it should worry somebody.
	Event string
	Warn  bool
	// Problem is what holds the change up, or what went wrong with the last one.
	Problem string
}

// Next decides the next step. It may be asked again with the state it gave, and then gives that state again unless the
// world has changed.
func Next(s State, w World) Step {
	switch {
	case !s.Changing():
		return begin(s, w)
	case s.Leaving:
		return retire(s, w)
	}
	return move(s, w)
}

// begin decides whether a change begins.
func begin(s State, w World) Step {
	have := s.Newest()
	ahead, common := have, false
	var leader string
	for _, p := range w.Peers {
		common = common || slices.Contains(p.Published, have)
		for _, g := range p.Published {
			if g > ahead && g <= have+maxJump {
				ahead, leader = g, p.Name
			}
		}
	}
	to, why := 0, ""
	switch {
	case ahead > have && !common:
		// Nobody has what this node has, so there is nothing to keep, and no second device is needed.
		return Step{State: State{Live: []int{ahead}, Since: w.Now}, Event: fmt.Sprintf("the others are at key generation %d: this node goes there from %d", ahead, have)}
	case ahead > have && other(ahead, have):
		to, why = ahead, "node "+leader+" has begun it"
	case ahead > have+1:
		to, why = ahead-1, "node "+leader+" is ahead" // on the free device; the next step leads to ahead
	case w.Asked:
		to, why = have+1, "it was asked for"
	case w.Every > 0 && !w.Now.Before(s.Since.Add(jittered(w.Every, w.Node, have))):
		to, why = have+1, "it is time"
	default:
		return Step{State: s, Problem: s.Why}
	}
	if w.Now.Before(s.NotBefore) && !w.Asked {
		return Step{State: s, Problem: fmt.Sprintf("%s; tried again in %v", s.Why, s.NotBefore.Sub(w.Now).Round(time.Second))}
	}
	return Step{State: State{Live: []int{have, to}, Since: w.Now}, Event: fmt.Sprintf("change of WireGuard keys from generation %d to %d begins: %s", have, to, why)}
}

// jittered spreads the nodes over a fifth of the interval, the same for one node and generation every time.
func jittered(every time.Duration, node string, generation int) time.Duration {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s %d", node, generation)
	return every - every/10 + time.Duration(float64(every)/5*float64(h.Sum32())/float64(1<<32))
}

// move waits until the newer generation carries every peer.
func move(s State, w World) Step {
	old, next := s.Live[0], s.Live[1]
	waited := w.Now.Sub(s.Since)
	patience := Patience
	if overtaken(old, w.Peers) {
		patience = Straggler
	}
	patient := waited < patience
	var pending, answered []string
	carried, tried := false, false
	for _, p := range w.Peers {
		has := slices.Contains(p.Published, next)
		moved := has && p.Sessions[next].Proved
		carried = carried || moved
		tried = tried || has && p.Sessions[old].Fresh
		if moved || !slices.Contains(p.Published, old) {
			continue
		}
		if p.Sessions[old].Fresh || patient {
			pending = append(pending, p.Name)
			if has {
				answered = append(answered, p.Name)
			}
		}
	}
	switch {
	case len(pending) == 0 && w.Broken == "":
		return Step{State: State{Live: s.Live, Leaving: true, Since: w.Now},
			Event: fmt.Sprintf("key generation %d carries all traffic of this node", next)}
	case !carried && waited >= Deadline && (w.Broken != "" || tried):
		why := w.Broken
		if why == "" {
			why = "no handshake with " + few(answered) + " on its port: open both wireguard.ports in the firewall"
		}
		why = fmt.Sprintf("change of WireGuard keys to generation %d was abandoned, generation %d stays: %s", next, old, why)
		return Step{State: State{Live: []int{old}, Since: s.Since, NotBefore: w.Now.Add(Again), Why: why}, Event: why, Warn: true, Problem: why}
	}
	step := Step{State: s}
	switch {
	case w.Broken != "":
		step.Problem = fmt.Sprintf("change of WireGuard keys to generation %d does not go on: %s", next, w.Broken)
	case waited >= Deadline && len(pending) > 0:
		step.Problem = fmt.Sprintf("change of WireGuard keys to generation %d waits for %s: start its agent, and see that both "+
			"wireguard.ports are open between it and this node", next, few(pending))
	}
	return step
}

// overtaken reports whether some peer has already left the older generation.
func overtaken(old int, peers []Peer) bool {
	return slices.ContainsFunc(peers, func(p Peer) bool { return !slices.Contains(p.Published, old) })
}

// retire waits until nobody needs the older generation's device.
func retire(s State, w World) Step {
	old, next := s.Live[0], s.Live[1]
	waited := w.Now.Sub(s.Since)
	if waited < Linger && waited >= 0 {
		return Step{State: s}
	}
	var holding []string
	for _, p := range w.Peers {
		if slices.Contains(p.Published, old) && (waited < Patience || p.Sessions[old].Fresh) {
			holding = append(holding, p.Name)
		}
	}
	if len(holding) > 0 {
		step := Step{State: s}
		if waited >= Deadline {
			step.Problem = fmt.Sprintf("key generation %d is still needed by %s: see the status of that node", old, few(holding))
		}
		return step
	}
	return Step{State: State{Live: []int{next}, Since: w.Now}, Event: fmt.Sprintf("change of WireGuard keys is done: generation %d is in use, %d is gone", next, old)}
}

// Carried says which generation carries the traffic to each peer: the newest with a live session, else the newest that
// ever had one. A peer that is not in it is reached over the oldest that both have.
func Carried(s State, peers []Peer) map[string]int {
	out := map[string]int{}
	for _, p := range peers {
		for _, ok := range []func(Session) bool{func(x Session) bool { return x.Fresh }, func(x Session) bool { return x.Proved }} {
			for _, g := range slices.Backward(s.Live) {
				if out[p.Name] == 0 && slices.Contains(p.Published, g) && ok(p.Sessions[g]) {
					out[p.Name] = g
				}
			}
		}
	}
	return out
}

func few(names []string) string {
	if len(names) > 4 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:4], ", "), len(names)-4)
	}
	return strings.Join(names, ", ")
}
