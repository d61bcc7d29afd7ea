package config

import (
	"strings"

	"github.com/spf13/pflag"
)

// RegisterFlags adds a flag for every key, and --config, to the flags of `weft agent`. A flag checks its value when it is set; Load reads
// the flags that were set. consul.token has no flag: everybody on the host can read a command line.
func RegisterFlags(fs *pflag.FlagSet) {
	fs.String(configFlag, "", "configuration file or directory (default "+defaultDir+"/weft.yaml, .toml, .json or .hcl, then "+defaultDir+"/conf.d)")
	for _, s := range settings {
		if s.flag() == "" {
			continue
		}
		f := fs.VarPF(&flagValue{setting: s}, s.flag(), "", s.usage())
		if s.shape == truth {
			f.NoOptDefVal = "true"
		}
	}
}

func (s *setting) usage() string {
	// pflag would take the first word in backquotes for the value's name.
	usage := strings.TrimSuffix(strings.ReplaceAll(s.help, "`", ""), ".")
	if s.presetDoc != "" {
		usage += " (default: " + strings.ReplaceAll(s.presetDoc, "`", "") + ")"
	}
	return usage
}

// flagValue is a flag's value as text; a list's flag may be given several times.
type flagValue struct {
	setting *setting
	values  []string
	changed bool
}

func (f *flagValue) Set(value string) error {
	values := f.setting.split(value)
	if f.setting.list && f.changed {
		values = append(f.values[:len(f.values):len(f.values)], values...)
	}
	if err := f.setting.check(values); err != nil {
		return err
	}
	f.values, f.changed = values, true
	return nil
}

func (f *flagValue) String() string {
	if f.setting == nil { // pflag asks a zero value for the default
		return ""
	}
	if !f.changed {
		return strings.Join(f.setting.preset, ",")
	}
	return strings.Join(f.values, ",")
}

func (f *flagValue) Type() string {
	switch {
	case f.setting.list:
		return "list"
	case f.setting.shape == truth:
		return "bool"
	case f.setting.shape == number:
		return "number"
	case strings.HasPrefix(f.setting.want, "a duration"):
		return "duration"
	}
	return "string"
}
