package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// modules are those that weft, its tests and what they start use; what these depend on comes along. They are loaded in
// order at boot, for the guest has no module tree to find them in by itself.
var modules = strings.Fields(`wireguard vxlan veth bridge tun dummy br_netfilter nf_tables nf_conntrack nf_nat nft_chain_nat nft_masq
	nft_nat nft_ct nft_compat nft_fib_inet nft_reject_inet nft_reject_bridge nft_meta_bridge nft_limit nft_log nft_objref nft_redir
	sch_netem sch_prio sch_ingress cls_u32 act_mirred overlay`)

// kernelFiles is an unpacked kernel: its image and the modules in the order in which they load.
type kernelFiles struct {
	pkg     string
	image   string
	modules []string
}

// packages that bring what is needed: a program or file of each, and its name.
var packages = map[string]string{
	"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox", "depmod": "kmod", "ip": "iproute2", "nft": "nftables",
	"nsenter": "util-linux", "iptables": "iptables", "wg": "wireguard-tools", "ping": "iputils-ping",
}

// prepare installs what is missing and gets the kernel. Debian's kernel packages carry an ABI number and leave the
// archive when the next one comes, so the name is asked for each time; what was unpacked is kept in the user's cache.
func prepare(ctx context.Context, pkg string) (kernelFiles, error) {
	var need []string
	for program, from := range packages {
		if _, err := exec.LookPath(program); err != nil {
			need = append(need, from)
		}
	}
	slices.Sort(need)
	if len(need) > 0 {
		fmt.Println("kernel: installing", strings.Join(need, " "))
		if _, err := command(ctx, "", "apt-get", "update", "-qq"); err != nil {
			return kernelFiles{}, err
		}
		if _, err := command(ctx, "", "apt-get", append([]string{"install", "-y", "-qq", "--no-install-recommends"}, need...)...); err != nil {
			return kernelFiles{}, err
		}
	}
	name, err := resolve(ctx, pkg)
	if err != nil {
		return kernelFiles{}, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return kernelFiles{}, err
	}
	dir := filepath.Join(cache, "weft", name)
	if k, err := load(name, dir); err == nil {
		return k, nil
	}
	fmt.Println("kernel: fetching", name)
	if err := fetch(ctx, name, dir); err != nil {
		return kernelFiles{}, err
	}
	return load(name, dir)
}

// resolve is the package that a meta-package depends on, or pkg itself when it is none.
func resolve(ctx context.Context, pkg string) (string, error) {
	out, err := command(ctx, "", "apt-cache", "depends", pkg)
	if err != nil {
		if _, err := command(ctx, "", "apt-get", "update", "-qq"); err != nil {
			return "", err
		}
		if out, err = command(ctx, "", "apt-cache", "depends", pkg); err != nil {
			return "", err
		}
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + name, nil
		}
	}
	return pkg, nil
}

// load reads what fetch left; a list of other modules than today's counts as absent.
func load(name, dir string) (kernelFiles, error) {
	k := kernelFiles{pkg: name, image: filepath.Join(dir, "vmlinuz")}
	list, err := os.ReadFile(filepath.Join(dir, "list"))
	if err != nil {
		return k, err
	}
	first, rest, _ := strings.Cut(string(list), "\n")
	if first != strings.Join(modules, " ") {
		return k, errors.New("made for other modules")
	}
	for m := range strings.FieldsSeq(rest) {
		k.modules = append(k.modules, filepath.Join(dir, m))
	}
	_, err = os.Stat(k.image)
	return k, err
}

// fetch downloads and unpacks the package, without installing it, and keeps the image and the modules.
func fetch(ctx context.Context, name, dest string) error {
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dest), ".kernel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if _, err := command(ctx, tmp, "apt-get", "download", "-qq", name); err != nil {
		if _, err := command(ctx, "", "apt-get", "update", "-qq"); err != nil {
			return err
		}
		if _, err := command(ctx, tmp, "apt-get", "download", "-qq", name); err != nil {
			return err
		}
	}
	deb, err := one(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return err
	}
	tree, out := filepath.Join(tmp, "tree"), filepath.Join(tmp, "out")
	if _, err := command(ctx, "", "dpkg", "-x", deb, tree); err != nil {
		return err
	}
	image, err := one(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil {
		return err
	}
	release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	if _, err := command(ctx, "", "depmod", "-b", tree, release); err != nil {
		return err
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	if err := os.Rename(image, filepath.Join(out, "vmlinuz")); err != nil {
		return err
	}
	list := strings.Join(modules, " ") + "\n"
	var files []string
	for _, m := range modules {
		deps, err := command(ctx, "", "modprobe", "-d", tree, "-S", release, "--show-depends", m)
		if err != nil {
			return err
		}
		for line := range strings.Lines(deps) { // "insmod PATH", or "builtin NAME"
			f := strings.Fields(line)
			if len(f) >= 2 && f[0] == "insmod" && !slices.Contains(files, f[1]) {
				files = append(files, f[1])
			}
		}
	}
	for _, f := range files { // not before: modprobe leaves out what it does not find
		list += filepath.Base(f) + "\n"
		if err := os.Rename(f, filepath.Join(out, filepath.Base(f))); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(out, "list"), []byte(list), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(dest); err != nil {
		return err
	}
	return os.Rename(out, dest)
}

func one(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s: %d files, want one", filepath.Base(pattern), len(found))
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// command runs a program, in dir if that is set, and returns what it printed on standard output.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	// modprobe and depmod may lie outside a plain user's PATH.
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}
