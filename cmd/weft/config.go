package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"weft/pkg/config"
)

// newConfigCommand makes `weft config`, which needs no agent.
func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check and show the agent's configuration",
		Long: `Check and show the agent's configuration: files, WEFT_* environment and defaults, without asking an agent.

Every key is described in docs/configuration.md.`,
		Example: `  weft config check
  weft config check /etc/weft/conf.d
  weft config show --config ./weft.hcl -o json`,
	}
	cmd.AddCommand(newConfigCheckCommand(), newConfigShowCommand())
	return cmd
}

func newConfigCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [PATH]",
		Short: "Check a configuration file or directory",
		Long: `Check a configuration file or directory of files, by default those the agent reads, together with the
WEFT_* environment. Prints OK, or everything that is wrong, one line each, and exits 1.`,
		Example: `  weft config check
  weft config check ./weft.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			loaded, err := config.Load(config.Options{Path: strings.Join(args, "")})
			if err != nil {
				return configErrors(cmd, err)
			}
			printConfigWarnings(cmd.ErrOrStderr(), loaded)
			read := "no file, only defaults and environment"
			if len(loaded.Files) > 0 {
				read = strings.Join(loaded.Files, ", ")
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "OK: %s\n", read)
			return err
		},
	}
}

func newConfigShowCommand() *cobra.Command {
	var path string
	output := configOutput("text")
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the effective values and where each came from",
		Long: `Show the value of every key that an agent started now would use, and where it came from: default, file or
environment. Secrets are redacted.`,
		Example: `  weft config show
  weft config show -o json | jq '.settings["consul.address"]'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := config.Load(config.Options{Path: path})
			if err != nil {
				return configErrors(cmd, err)
			}
			if output == "json" {
				return printConfigJSON(cmd.OutOrStdout(), loaded)
			}
			printConfigWarnings(cmd.ErrOrStderr(), loaded)
			return printConfigText(cmd.OutOrStdout(), loaded)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration file or directory")
	cmd.Flags().VarP(&output, "output", "o", "text or json")
	return cmd
}

// configErrors prints everything that is wrong, one line each; the error it returns says that all is said.
func configErrors(cmd *cobra.Command, err error) error {
	var all config.Errors
	if !errors.As(err, &all) {
		return err
	}
	for _, e := range all {
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), e)
	}
	return exitError{code: exitFailed}
}

// configOutput is a pflag.Value, so that a wrong one is a usage error.
type configOutput string

func (o *configOutput) String() string { return string(*o) }
func (o *configOutput) Type() string   { return "string" }

func (o *configOutput) Set(s string) error {
	if !slices.Contains([]string{"text", "json"}, s) {
		return fmt.Errorf("want text or json")
	}
	*o = configOutput(s)
	return nil
}

func printConfigWarnings(w io.Writer, loaded *config.Loaded) {
	for _, warning := range loaded.Warnings {
		_, _ = fmt.Fprintf(w, "warning: %s\n", warning)
	}
}

func printConfigText(w io.Writer, loaded *config.Loaded) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "KEY\tVALUE\tFROM")
	for _, s := range loaded.Settings() {
		value := s.Text
		if value == "" {
			value = "-"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", s.Key, value, s.Source)
	}
	return table.Flush()
}

func printConfigJSON(w io.Writer, loaded *config.Loaded) error {
	type source struct {
		Kind config.SourceKind `json:"kind"`
		Name string            `json:"name,omitempty"`
	}
	type setting struct {
		Value  any    `json:"value"`
		Source source `json:"source"`
	}
	out := struct {
		Files    []string           `json:"files"`
		Warnings []string           `json:"warnings"`
		Settings map[string]setting `json:"settings"`
	}{append([]string{}, loaded.Files...), append([]string{}, loaded.Warnings...), map[string]setting{}}
	for _, s := range loaded.Settings() {
		out.Settings[s.Key] = setting{s.Value, source{s.Source.Kind, s.Source.Name}}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
