package agent

import (
	"errors"
	"os"

	"weft/pkg/api"
)

// engineStatus adds what the engine has dropped, by reason, to the fences' counters.
func (a *Agent) engineStatus(st *api.Status) {
	if a.engine == nil {
		return
	}
	traffic, networks, err := a.engine.Traffic()
	if errors.Is(err, os.ErrNotExist) {
		return // no encrypted network here yet; if there should be one, the loop says so
	}
	if err != nil {
		st.Problems = append(st.Problems, api.Problem{Subject: "engine", Message: oneLine(err.Error())})
		return
	}
	if traffic.Stuck != "" {
		st.Problems = append(st.Problems, api.Problem{Subject: "engine", Message: traffic.Stuck})
	}
	if st.Drops == nil {
		st.Drops = map[string]uint64{}
	}
	add := func(drops map[string]uint64) {
		for reason, n := range drops {
			st.Drops["engine_"+reason] += n
		}
	}
	add(traffic.Drops)
	for _, n := range networks {
		add(n.Drops)
		for _, p := range n.Peers {
			add(p.Drops)
		}
	}
}
