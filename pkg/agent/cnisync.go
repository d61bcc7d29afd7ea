package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"weft/keys/store"
	"weft/pkg/api"
	"weft/pkg/cni"
)

// cniEvery is the time between looks at the CNI configurations, wall time.
const cniEvery = 2 * time.Second

// syncCNI keeps a CNI configuration for each network of the cluster, where cni.sync asks for it. A file that is there
// stays as it is, for an operator may have written it with options of his own; one goes when its network was removed, and
// not when the network is only not to be seen.
func (a *Agent) syncCNI(ctx context.Context) error {
	cfg := a.opt.Config
	if !cfg.CNI.Sync {
		return nil
	}
	for {
		problem := ""
		if err := a.writeCNI(cfg.CNI.Dir); err != nil {
			problem = fmt.Sprintf("CNI configurations are not in step: %v; retrying", err)
		}
		a.note("cni", problem)
		if !wait(ctx, cniEvery) {
			return nil
		}
	}
}

func (a *Agent) writeCNI(dir string) error {
	s := a.snap.Load()
	if s == nil {
		return nil
	}
	var errs []error
	for name, n := range s.Networks {
		path := filepath.Join(dir, cni.ConflistName(name))
		_, err := os.Lstat(path)
		switch {
		case err == nil && !n.Alive():
			errs = append(errs, os.Remove(path))
			a.log.Info("CNI configuration removed", "network", name, "path", path)
		case errors.Is(err, os.ErrNotExist) && n.Alive():
			errs = append(errs, a.writeConflist(path, name))
		case err != nil && !errors.Is(err, os.ErrNotExist):
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) writeConflist(path, network string) error {
	set := cni.Settings{Network: network}
	if a.opt.Config.Socket != api.DefaultSocket {
		set.Socket = a.opt.Config.Socket
	}
	data, err := cni.Conflist(network, "", set)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := store.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	a.log.Info("CNI configuration written", "network", network, "path", path)
	return nil
}
