package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weft/keys"
	"weft/keys/store"
	"weft/pkg/api"
	"weft/pkg/ledger"
	"weft/pkg/overlay"
)

// signing is how a command that signs gets at a signer's key. The key never leaves this process: the agent sees only what
// it signed.
type signing struct {
	app        *app
	file       string
	passphrase string
	recovery   bool
}

func (a *app) trustCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust COMMAND",
		Short: "Say who may be a node: signers, admissions, join tokens, revocations",
		Example: `weft trust init --out signer.key
weft trust sign n4 --signer signer.key
weft trust revoke n4 --signer signer.key`,
	}
	token := &cobra.Command{Use: "token COMMAND", Short: "Make join tokens", Example: "weft trust token create --uses 1 --ttl 1h"}
	token.AddCommand(a.trustTokenCommand())
	signer := &cobra.Command{Use: "signer COMMAND", Short: "Add and remove signers", Example: "weft trust signer add KEY --name alice"}
	signer.AddCommand(a.trustSignerAddCommand(), a.trustSignerRemoveCommand())
	cmd.AddCommand(a.trustInitCommand(), a.trustStatusCommand(), a.trustSignCommand(), a.trustRevokeCommand(), token, signer)
	return cmd
}

func (a *app) signingFlags(cmd *cobra.Command) *signing {
	s := &signing{app: a}
	cmd.Flags().StringVar(&s.file, "signer", "signer.key", "the signer's key `FILE`")
	cmd.Flags().StringVar(&s.passphrase, "passphrase-file", "", "`FILE` with its passphrase; default: ask")
	cmd.Flags().BoolVar(&s.recovery, "recovery", false, "ask for the printed recovery key instead")
	return s
}

func (a *app) trustInitCommand() *cobra.Command {
	var out, name, passphrase string
	cmd := &cobra.Command{
		Use:   "init [flags]",
		Short: "Make a signer's key and a recovery key",
		Long: `Make a signer's key in a file, encrypted under a passphrase, and a recovery key, which is printed once: write it down and
lock it away. Both public keys go into trust.signers of every agent. It needs no agent and no network.`,
		Example: "weft trust init --out signer.key --name alice",
	}
	cmd.Flags().StringVar(&out, "out", "signer.key", "the key `FILE` to make")
	cmd.Flags().StringVar(&name, "name", "operator", "whose key it is, for people")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "`FILE` with the passphrase; default: ask")
	cmd.RunE = func(*cobra.Command, []string) error { return a.trustInit(out, name, passphrase) }
	return cmd
}

func (a *app) trustInit(out, name, passphraseFile string) error {
	if _, err := os.Lstat(out); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is there already: nothing was made", out)
	}
	pass, err := a.readPassphrase(passphraseFile, true)
	if err != nil {
		return err
	}
	id, err := keys.NewIdentity()
	if err != nil {
		return err
	}
	recovery, err := keys.NewIdentity()
	if err != nil {
		return err
	}
	file, err := keys.SealIdentity(id, name, pass)
	if err != nil {
		return err
	}
	if err := store.WriteFile(out, file, 0o600); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "signer's key in %s, public key %s\n\n", out, id.Public())
	fmt.Fprintf(a.stdout, "RECOVERY KEY, printed this once: write it down, lock it away\n\n    %s\n\n", recovery.RecoveryText())
	fmt.Fprintf(a.stdout, "in every agent's configuration:\n\n    trust:\n      mode: locked\n      signers:\n        - %s\n        - %s\n\n", id.Public(), recovery.Public())
	fmt.Fprint(a.stdout, "Sign the nodes there are (weft trust sign NODE) before their agents start with it.\n")
	return nil
}

func (a *app) trustStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show signers, nodes and tokens",
		Example: "weft trust status\nweft trust status -o json",
	}
	o := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t, err := a.client().Trust(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(*o, t, func(w io.Writer) { writeTrust(w, t) })
	}
	return cmd
}

func writeTrust(w io.Writer, t api.Trust) {
	fmt.Fprintf(w, "mode\t%s\ncluster\t%s\n", t.Mode, t.Cluster)
	if len(t.Signers) > 0 {
		fmt.Fprint(w, "\nSIGNER\tNAME\tADDED BY\tSTATE\n")
	}
	for _, s := range t.Signers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Key, dash(s.Name), dash(s.By), revokedState(s.Revoked, "valid"))
	}
	fmt.Fprint(w, "\nNODE\tIDENTITY\tBY\tSTATE\n")
	for _, n := range t.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Name, n.Identity, dash(n.By), revokedState(n.Revoked, n.State))
	}
	if len(t.Tokens) > 0 {
		fmt.Fprint(w, "\nTOKEN\tUSED\tEXPIRES\tSTATE\n")
	}
	for _, k := range t.Tokens {
		state := "valid"
		if time.Now().After(k.Expires) {
			state = "expired"
		}
		fmt.Fprintf(w, "%s\t%d of %d\t%s\t%s\n", k.Key, k.Used, k.Uses, k.Expires.Local().Format(time.RFC3339), revokedState(k.Revoked, state))
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func revokedState(revoked bool, otherwise string) string {
	if revoked {
		return "revoked"
	}
	return otherwise
}

func (a *app) trustSignCommand() *cobra.Command {
	var identity string
	cmd := &cobra.Command{
		Use:   "sign NODE [flags]",
		Short: "Admit a node",
		Long: `Admit a node: its identity is signed as the node of that name. Compare the identity with what "weft node inspect" says on
that host, or give it with --identity: whoever can write Consul can put another one under the name.`,
		Args:              args("NODE"),
		Example:           "weft trust sign n4 --signer signer.key\nweft trust sign n4 --identity KEY",
		ValidArgsFunction: a.complete(nodeNames),
	}
	cmd.Flags().StringVar(&identity, "identity", "", "the node's identity `KEY`; needed when several claim the name")
	s := a.signingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		name := overlay.CanonicalName(got[0])
		t, err := a.client().Trust(cmd.Context())
		if err != nil {
			return err
		}
		id, err := claimant(t, name, identity)
		if err != nil {
			return err
		}
		err = s.sign(cmd.Context(), t, ledger.KindAdmission, overlay.TrustPath("nodes", name), func(key keys.IdentityKey, now time.Time, rev uint64) any {
			return overlay.Admission{Node: name, Identity: id, Admitted: now, Signer: key, Revision: rev}
		})
		if err == nil {
			fmt.Fprintf(a.stdout, "admitted node %s with identity %s\n", name, id)
		}
		return err
	}
	return cmd
}

// claimant is the identity that claims a node name, or the given one.
func claimant(t api.Trust, name, given string) (keys.IdentityKey, error) {
	if given != "" {
		return keys.ParseIdentityKey(given)
	}
	var found []string
	for _, n := range t.Nodes {
		if n.Name == name && !n.Revoked {
			found = append(found, n.Identity)
		}
	}
	switch len(found) {
	case 0:
		return keys.IdentityKey{}, fmt.Errorf("no identity claims the name %q: start its agent, or give it with --identity", name)
	case 1:
		return keys.ParseIdentityKey(found[0])
	}
	return keys.IdentityKey{}, fmt.Errorf("%d identities claim the name %q (%s): look on that host which is right, and give it with --identity", len(found), name, strings.Join(found, ", "))
}

func (a *app) trustRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke NODE-OR-KEY [flags]",
		Short: "Revoke a node's identity, or a token, for good",
		Long: `Revoke a node's identity, or the key of a token. All nodes drop it at once and never take it back: a host that is to come
back needs a new identity (weft leave --purge on it) and a new admission.`,
		Args:              args("NODE-OR-KEY"),
		Example:           "weft trust revoke n4 --signer signer.key",
		ValidArgsFunction: a.complete(nodeNames),
	}
	s := a.signingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error { return s.revoke(cmd.Context(), got[0]) }
	return cmd
}

func (s *signing) revoke(ctx context.Context, what string) error {
	t, err := s.app.client().Trust(ctx)
	if err != nil {
		return err
	}
	key, err := keys.ParseIdentityKey(what)
	if err != nil {
		if key, err = claimant(t, overlay.CanonicalName(what), ""); err != nil {
			return err
		}
	}
	err = s.sign(ctx, t, ledger.KindRevocation, overlay.TrustPath("revoked", overlay.KeyPath(key)), func(signer keys.IdentityKey, now time.Time, rev uint64) any {
		return overlay.Revocation{Key: key, Name: what, Revoked: now, Signer: signer, Revision: rev}
	})
	if err == nil {
		fmt.Fprintf(s.app.stdout, "revoked %s (%s)\n", what, key)
	}
	return err
}

func (a *app) trustTokenCommand() *cobra.Command {
	var uses int
	var ttl time.Duration
	var out string
	cmd := &cobra.Command{
		Use:   "create [flags]",
		Short: "Make a join token, with which new nodes admit themselves",
		Long: `Make a join token: a key that may admit new nodes, as often and as long as it says. Give the file to the agent of a new
node (weft agent --join-token-file FILE), by a way that is not Consul.`,
		Example: "weft trust token create --uses 1 --ttl 1h --out join.token --signer signer.key",
	}
	cmd.Flags().IntVar(&uses, "uses", 1, "how many nodes it admits")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is valid, at most 720h")
	cmd.Flags().StringVar(&out, "out", "", "the token `FILE` to make; default: print it")
	s := a.signingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t, err := a.client().Trust(cmd.Context())
		if err != nil {
			return err
		}
		key, err := keys.NewIdentity()
		if err != nil {
			return err
		}
		err = s.sign(cmd.Context(), t, ledger.KindToken, overlay.TrustPath("tokens", overlay.KeyPath(key.Public())), func(signer keys.IdentityKey, now time.Time, rev uint64) any {
			return overlay.Token{Key: key.Public(), Uses: uses, Created: now, Expires: now.Add(ttl.Truncate(time.Second)), Signer: signer, Revision: rev}
		})
		if err != nil {
			return err
		}
		text := keys.Token{Cluster: t.Cluster, Key: key}.Reveal() + "\n"
		if out == "" {
			_, err = io.WriteString(a.stdout, text)
			return err
		}
		return store.WriteFile(out, []byte(text), 0o600)
	}
	return cmd
}

func (a *app) trustSignerAddCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:     "add KEY [flags]",
		Short:   "Make another key a signer",
		Long:    "Make another key a signer: its public key, as \"weft trust init\" printed it. Only a key of trust.signers can.",
		Args:    args("KEY"),
		Example: "weft trust signer add KEY --name bob --signer signer.key",
	}
	cmd.Flags().StringVar(&name, "name", "", "whose key it is, for people")
	s := a.signingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		key, err := keys.ParseIdentityKey(got[0])
		if err != nil {
			return err
		}
		t, err := a.client().Trust(cmd.Context())
		if err != nil {
			return err
		}
		return s.sign(cmd.Context(), t, ledger.KindSigner, overlay.TrustPath("signers", overlay.KeyPath(key)), func(signer keys.IdentityKey, now time.Time, rev uint64) any {
			return overlay.Signer{Key: key, Name: name, Added: now, Signer: signer, Revision: rev}
		})
	}
	return cmd
}

func (a *app) trustSignerRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove KEY [flags]",
		Short: "Revoke a signer for good",
		Long: `Revoke a signer's key. The nodes that it admitted are not believed any more, so sign them again before, with another
signer. Take a key of trust.signers out of every agent's configuration as well.`,
		Args:    args("KEY"),
		Example: "weft trust signer remove KEY --signer other.key",
	}
	s := a.signingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		if _, err := keys.ParseIdentityKey(got[0]); err != nil {
			return err
		}
		return s.revoke(cmd.Context(), got[0])
	}
	return cmd
}

// sign makes a record, signs it and hands it to the agent.
func (s *signing) sign(ctx context.Context, t api.Trust, kind, path string, record func(key keys.IdentityKey, now time.Time, revision uint64) any) error {
	id, err := s.identity()
	if err != nil {
		return err
	}
	value, err := keys.Envelope{Kind: kind, Cluster: t.Cluster, Path: path}.Seal(id,
		record(id.Public(), time.Now().UTC().Truncate(time.Second), t.Revisions[path]+1))
	if err != nil {
		return err
	}
	return s.app.client().PutTrust(ctx, api.TrustRecord{Path: path, Value: string(value)})
}

// identity opens the signer's key.
func (s *signing) identity() (keys.Identity, error) {
	if s.recovery {
		text, err := s.app.ask("recovery key: ")
		if err != nil {
			return keys.Identity{}, err
		}
		return keys.ParseRecovery(string(text))
	}
	file, err := store.ReadSecret(s.file)
	if err != nil {
		return keys.Identity{}, fmt.Errorf("open signer's key: %w", err)
	}
	pass, err := s.app.readPassphrase(s.passphrase, false)
	if err != nil {
		return keys.Identity{}, err
	}
	return keys.OpenIdentity(file, pass)
}

// readPassphrase reads a passphrase from a file, or asks for it, twice when it is new.
func (a *app) readPassphrase(file string, fresh bool) ([]byte, error) {
	if file != "" {
		path, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		text, err := store.ReadSecret(path)
		return bytes.TrimRight(text, "\r\n"), err
	}
	pass, err := a.ask("passphrase: ")
	if err != nil || !fresh {
		return pass, err
	}
	again, err := a.ask("again: ")
	if err == nil && !bytes.Equal(pass, again) {
		err = errors.New("the two passphrases differ: nothing was made")
	}
	return pass, err
}

// ask reads a line, on a terminal without showing it.
func (a *app) ask(prompt string) ([]byte, error) {
	fmt.Fprint(a.stderr, prompt)
	if f, ok := a.stdin.(*os.File); ok && isTerminal(f) {
		old, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		if err != nil {
			return nil, err
		}
		quiet := *old
		quiet.Lflag &^= unix.ECHO
		if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &quiet); err != nil {
			return nil, err
		}
		defer func() {
			_ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, old)
			fmt.Fprintln(a.stderr)
		}()
	}
	if a.lines == nil {
		a.lines = bufio.NewReader(a.stdin)
	}
	line, err := a.lines.ReadString('\n')
	if err != nil && (line == "" || !errors.Is(err, io.EOF)) {
		return nil, errors.New("nothing was typed: no terminal? use --passphrase-file")
	}
	return []byte(strings.TrimRight(line, "\r\n")), nil
}
