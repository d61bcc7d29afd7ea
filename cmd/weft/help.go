package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is how wide a help page may be; its height, 24 lines, is up to who writes commands, and a test's.
const helpWidth = 100

// helpFlags is how many flags a page describes; of more it gives the names only.
const helpFlags = 14

// finish gives every command of the tree the behaviour that weft's commands share, whoever wrote them: help of one
// screen, usage errors with their own exit code, and an answer to a group without a command.
func finish(cmd *cobra.Command) {
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { fmt.Fprint(cmd.OutOrStdout(), helpText(cmd, false)) })
	cmd.SetFlagErrorFunc(flagError)
	cmd.InitDefaultHelpFlag()
	if f := cmd.Flags().Lookup("help"); f != nil {
		f.Usage = "show this"
	}
	cmd.DisableFlagsInUseLine = true
	cmd.SuggestionsMinimumDistance = 2
	switch {
	case cmd.HasSubCommands():
		cmd.Args = func(cmd *cobra.Command, got []string) error {
			if len(got) > 0 {
				return unknownCommand(cmd, got[0])
			}
			return nil
		}
		if !cmd.Runnable() {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				return usagef("which %s command? %s", cmd.Name(), strings.Join(commandNames(cmd), ", "))
			}
		}
	case cmd.DisableFlagParsing:
		// started by weft itself, not by people
	case cmd.Args == nil:
		cmd.Args = args()
	default:
		inner := cmd.Args
		cmd.Args = func(cmd *cobra.Command, got []string) error {
			if err := inner(cmd, got); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		finish(sub)
	}
}

// flagError words what pflag found wrong. Arguments that were read before the flag can show that it was not meant for
// this command at all.
func flagError(cmd *cobra.Command, err error) error {
	rest := cmd.Flags().Args()
	switch {
	case cmd.HasSubCommands() && len(rest) > 0:
		return unknownCommand(cmd, rest[0])
	case strings.Contains(cmd.Use, "-- CMD") && len(rest) > 1 && cmd.ArgsLenAtDash() < 0:
		return dashesMissing(cmd, rest)
	}
	var value *pflag.InvalidValueError
	var number *strconv.NumError
	if errors.As(err, &value) && errors.As(err, &number) {
		return usagef("--%s %q: %w", value.GetFlag().Name, value.GetValue(), number.Err)
	}
	return usageError{err}
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

// helpText is a command's help page; full describes every flag, however many lines that takes.
func helpText(cmd *cobra.Command, full bool) string {
	var b strings.Builder
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	b.WriteString(wrap(strings.TrimSpace(about)) + "\n")
	if cmd.HasParent() { // the first page has no line to spare
		b.WriteString("\nUsage: " + cmd.UseLine() + "\n")
	}
	flags := flagList(cmd)
	switch {
	case len(commandNames(cmd)) > 0:
		b.WriteString("\nCommands:\n" + commandList(cmd))
	case full || flagCount(flags) <= helpFlags:
		b.WriteString("\nFlags:\n" + flags.FlagUsagesWrapped(helpWidth))
	default:
		name := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
		fmt.Fprintf(&b, "\nFlags, described by weft help --full %s:\n%s", name, flagNames(flags))
	}
	if cmd.Example != "" {
		b.WriteString("\nExamples:\n")
		for line := range strings.Lines(strings.Trim(cmd.Example, "\n")) {
			fmt.Fprintf(&b, "  %s\n", strings.TrimSpace(line))
		}
	}
	return b.String()
}

// wrap flows the paragraphs of s that have a line wider than a page.
func wrap(s string) string {
	paragraphs := strings.Split(s, "\n\n")
	for i, p := range paragraphs {
		if !slices.ContainsFunc(strings.Split(p, "\n"), func(l string) bool { return utf8.RuneCountInString(l) > helpWidth }) {
			continue
		}
		var b strings.Builder
		column := 0
		for _, word := range strings.Fields(p) {
			n := utf8.RuneCountInString(word)
			switch {
			case column == 0:
			case column+1+n > helpWidth:
				b.WriteByte('\n')
				column = 0
			default:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += n
		}
		paragraphs[i] = b.String()
	}
	return strings.Join(paragraphs, "\n\n")
}

func commandList(cmd *cobra.Command) string {
	var b strings.Builder
	width := 0
	for _, name := range commandNames(cmd) {
		width = max(width, len(name))
	}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			fmt.Fprintf(&b, "  %-*s  %s\n", width, c.Name(), c.Short)
		}
	}
	return b.String()
}

// flagList is a command's own flags by name, then those that most commands have.
func flagList(cmd *cobra.Command) *pflag.FlagSet {
	common := []string{"output", "socket", "help"}
	list := &pflag.FlagSet{SortFlags: false}
	var tail []*pflag.Flag
	add := func(f *pflag.Flag) {
		if slices.Contains(common, f.Name) {
			tail = append(tail, f)
			return
		}
		list.AddFlag(f)
	}
	cmd.LocalFlags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	slices.SortFunc(tail, func(a, b *pflag.Flag) int {
		return slices.Index(common, a.Name) - slices.Index(common, b.Name)
	})
	for _, f := range tail {
		list.AddFlag(f)
	}
	return list
}

func flagCount(flags *pflag.FlagSet) (n int) {
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			n++
		}
	})
	return n
}

// flagNames fills lines with the names of flags.
func flagNames(flags *pflag.FlagSet) string {
	line, out := " ", ""
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if len(line)+len(f.Name)+3 > helpWidth {
			line, out = " ", out+line+"\n"
		}
		line += " --" + f.Name
	})
	return out + line + "\n"
}

// helpCommand is "weft help COMMAND", the same as --help.
func helpCommand() *cobra.Command {
	var full bool
	help := &cobra.Command{
		Use:     "help [--full] [COMMAND...]",
		Short:   "Show the help of a command",
		Example: "weft help network create\nweft help --full agent",
		Hidden:  true,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, path []string) error {
			found, rest, err := cmd.Root().Find(path)
			if err != nil || found == nil {
				return usagef("no command %q", strings.Join(path, " "))
			}
			if len(rest) > 0 {
				return unknownCommand(found, rest[0])
			}
			found.InitDefaultHelpFlag()
			_, err = fmt.Fprint(cmd.OutOrStdout(), helpText(found, full))
			return err
		},
	}
	help.Flags().BoolVar(&full, "full", false, "describe every flag, also when they do not fit one screen")
	return help
}

// completionCommand prints what a shell loads.
func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "completion bash|zsh|fish",
		Hidden: true, // the page of all commands is one screen
		Short:  "Print a shell completion script",
		Long: "Print the script that lets a shell complete weft's commands, flags and the names of networks,\n" +
			"endpoints and nodes.",
		Example: `source <(weft completion bash)
weft completion bash > /etc/bash_completion.d/weft
weft completion zsh > "${fpath[1]}/_weft"
weft completion fish > ~/.config/fish/completions/weft.fish`,
		Args:      args("SHELL"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, shell []string) error {
			out := cmd.OutOrStdout()
			switch shell[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(out)
			case "fish":
				return cmd.Root().GenFishCompletion(out, true)
			}
			return usagef("no completion for %q: bash, zsh or fish", shell[0])
		},
	}
}
