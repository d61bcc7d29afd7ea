package config

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// Options say where Load looks. The zero value reads the default places and the process's environment.
type Options struct {
	// Path is a file or a directory of files; empty means the flag --config, the variable WEFT_CONFIG, or the default places:
	// /etc/weft/weft.{yaml,yml,toml,json,hcl}, then the files of /etc/weft/conf.d over it.
	Path string
	// Flags are parsed flags that RegisterFlags made; may be nil. Only those that were set count.
	Flags *pflag.FlagSet
	// Environ is a list of NAME=value; nil means os.Environ. An empty value counts as not set.
	Environ []string

	etc, resolv string                 // other places, for tests
	hostname    func() (string, error) // for tests
}

func (o Options) defaultDir() string {
	if o.etc != "" {
		return o.etc
	}
	return defaultDir
}

func (o Options) resolvConf() string {
	if o.resolv != "" {
		return o.resolv
	}
	return resolvConf
}

// Loaded is a configuration with its provenance.
type Loaded struct {
	Config Config
	// Sources has an entry for every key.
	Sources map[string]Source
	// Files are those that were read, weakest first.
	Files []string
	// Warnings are one line each; nothing in them stops the agent.
	Warnings []string

	fingerprint fingerprint
}

// loader collects values and everything that is wrong with them.
type loader struct {
	opts   Options
	viper  *viper.Viper
	out    *Loaded
	errs   Errors
	broken map[string]bool // keys with an error, which checks over several keys leave alone
	unread bool            // a file could not be read or parsed
}

// Load reads defaults, files, environment and flags, each over the one before it; a list replaces a list. Its error is an Errors with
// everything that is wrong, one line each; errors.Is finds os.ErrNotExist and os.ErrPermission of files. Safe for concurrent use
// as long as nobody changes the flags.
func Load(opts Options) (*Loaded, error) {
	l := &loader{
		opts:   opts,
		viper:  viper.NewWithOptions(viper.WithCodecRegistry(codecs())),
		out:    &Loaded{Sources: map[string]Source{}, fingerprint: opts.fingerprint()},
		broken: map[string]bool{},
	}
	l.defaults()
	l.files()
	l.inputs()
	l.effective()
	l.checkRules()
	if len(l.errs) > 0 {
		return nil, l.errs
	}
	l.warn()
	return l.out, nil
}

func (l *loader) fail(source Source, key, message string) {
	l.errs = append(l.errs, &Error{Source: source, Key: key, Message: message})
	l.broken[key] = true
}

func (l *loader) unreadable(err *Error) {
	l.errs = append(l.errs, err)
	l.unread = true
}

func (l *loader) defaults() {
	for _, s := range settings {
		l.viper.SetDefault(s.name, s.preset)
		l.out.Sources[s.name] = Source{FromDefault, s.lookup}
	}
}

func (l *loader) files() {
	files, warnings, err := l.opts.discover()
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Message: err.Error(), Err: err}
		}
		if path, named := l.opts.path(); path != "" && l.opts.Path == "" {
			e.Message += " (named by " + named.String() + ")"
		}
		l.unreadable(e)
		return
	}
	l.out.Files, l.out.Warnings = files, warnings
	for _, path := range files {
		l.file(path)
	}
}

func (l *loader) file(path string) {
	source := Source{FromFile, path}
	data, mode, err := readFile(path)
	if err != nil {
		l.unreadable(fileError(path, err))
		return
	}
	tree, err := decode(path, data)
	if err != nil {
		l.unreadable(&Error{Source: source, Message: err.Error(), Err: err})
		return
	}
	merged := map[string]any{}
	for _, leaf := range flatten("", tree, 0) {
		s := l.known(source, leaf)
		if s == nil {
			continue
		}
		values, err := s.fromFile(leaf.value)
		if err == nil {
			err = s.check(values)
		}
		switch {
		case err != nil:
			l.fail(source, s.name, err.Error())
			continue
		case has(merged, s.name):
			l.fail(source, s.name, "is set twice")
			continue
		}
		put(merged, s.name, values)
		l.out.Sources[s.name] = source
		if s.secret && mode.Perm()&0o004 != 0 {
			l.out.Warnings = append(l.out.Warnings, oneLine(fmt.Sprintf("%s: holds %s and everybody can read it: chmod o-r %[1]s", path, s.name)))
		}
	}
	if err := l.viper.MergeConfigMap(merged); err != nil {
		l.fail(source, "", err.Error())
	}
}

// inputs gives viper the flags and variables that are set.
func (l *loader) inputs() {
	vars := l.opts.environment()
	for _, s := range settings {
		if value, set := vars[s.env()]; set {
			l.input(s, Source{FromEnv, s.env()}, value)
		}
		if l.opts.Flags == nil || s.flag() == "" {
			continue
		}
		if f := l.opts.Flags.Lookup(s.flag()); f != nil && f.Changed {
			l.input(s, Source{FromFlag, "--" + f.Name}, f.Value.String())
		}
	}
	errs, warnings := strayVariables(vars)
	l.errs = append(l.errs, errs...)
	l.out.Warnings = append(l.out.Warnings, warnings...)
}

func (l *loader) input(s *setting, source Source, value string) {
	if s.flagOnly && source.Kind != FromFlag {
		l.fail(source, s.name, "is only a flag: weft agent --"+s.flag())
		return
	}
	if err := s.check(s.split(value)); err != nil {
		l.fail(source, s.name, err.Error())
		return
	}
	// A flag replaces the variable bound before it. viper.BindEnv would read the process's environment, not Options.Environ.
	_ = l.viper.BindFlagValue(s.name, boundInput{s.name, value}) // fails for nil only
	l.out.Sources[s.name] = source
}

// boundInput is a viper.FlagValue that was set.
type boundInput struct{ name, value string }

func (b boundInput) HasChanged() bool    { return true }
func (b boundInput) Name() string        { return b.name }
func (b boundInput) ValueString() string { return b.value }
func (b boundInput) ValueType() string   { return "string" }

// effective stores what viper found strongest.
func (l *loader) effective() {
	for _, s := range settings {
		source := l.out.Sources[s.name]
		if l.broken[s.name] {
			continue
		}
		values, _ := l.viper.Get(s.name).([]string)
		if source.Kind == FromEnv || source.Kind == FromFlag {
			values = s.split(l.viper.GetString(s.name))
		}
		if source.Kind == FromDefault && s.lookup != "" {
			values = l.lookUp(s)
		}
		if l.broken[s.name] {
			continue
		}
		if err := s.store(&l.out.Config, values); err != nil {
			l.fail(source, s.name, err.Error())
		}
	}
}

func (l *loader) lookUp(s *setting) []string {
	if s.name == "node_name" {
		hostname := l.opts.hostname
		if hostname == nil {
			hostname = os.Hostname
		}
		name, err := hostname()
		if err != nil {
			l.fail(l.out.Sources[s.name], s.name, "read host name: "+err.Error())
		}
		return []string{name}
	}
	servers, err := nameservers(l.opts.resolvConf(), systemdResolv)
	if err != nil {
		l.out.Warnings = append(l.out.Warnings, oneLine("dns.upstreams: "+err.Error()))
	}
	return servers
}
