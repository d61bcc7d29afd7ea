package config

import (
	"os"
	"slices"
	"strings"
)

// environment returns the non-empty WEFT_* variables; of one that is there twice, the last.
func (o Options) environment() map[string]string {
	environ := o.Environ
	if environ == nil {
		environ = os.Environ()
	}
	vars := map[string]string{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, envPrefix) && value != "" {
			vars[name] = value
		}
	}
	return vars
}

// path is the file or directory to read and what named it; empty for the default places.
func (o Options) path() (string, Source) {
	if o.Path != "" {
		return o.Path, Source{FromFlag, "--" + configFlag}
	}
	if o.Flags != nil {
		if f := o.Flags.Lookup(configFlag); f != nil && f.Changed && f.Value.String() != "" {
			return f.Value.String(), Source{FromFlag, "--" + configFlag}
		}
	}
	return o.environment()[configEnv], Source{FromEnv, configEnv}
}

// strayVariables judges WEFT_* variables that set no key: one that is nearly right is an error, any other only a warning, for other
// programs share the environment (Kubernetes makes WEFT_SERVICE_HOST of a service named weft).
func strayVariables(vars map[string]string) (errs Errors, warnings []string) {
	names := []string{configEnv}
	known := map[string]bool{configEnv: true}
	for _, s := range settings {
		known[s.env()] = true
		if !s.flagOnly {
			names = append(names, s.env())
		}
	}
	var stray []string
	for name := range vars {
		if !known[name] {
			stray = append(stray, name)
		}
	}
	slices.Sort(stray)
	for _, name := range stray {
		near := ""
		for _, candidate := range names {
			if d := distance(name, candidate); len(name) <= maxWord && d <= 2 {
				near = candidate
				break
			}
		}
		if near != "" {
			errs = append(errs, &Error{Source: Source{FromEnv, name}, Message: "sets nothing; did you mean " + near + "?"})
		} else {
			warnings = append(warnings, oneLine(name+": sets nothing: no key has this variable"))
		}
	}
	return errs, warnings
}
