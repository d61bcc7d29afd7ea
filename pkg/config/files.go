package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const defaultDir = "/etc/weft"

// discover lists the files to read, weakest first, and warnings about files that are passed over.
func (o Options) discover() (files, warnings []string, err error) {
	if path, _ := o.path(); path != "" {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return nil, nil, fileError(path, err)
		case info.IsDir():
			return directory(path)
		default:
			return []string{path}, nil, nil
		}
	}
	for _, ext := range extensions {
		path := filepath.Join(o.defaultDir(), "weft"+ext)
		switch _, err := os.Stat(path); {
		case err == nil:
			files = append(files, path)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, nil, fileError(path, err)
		}
	}
	if len(files) > 1 {
		return nil, nil, fileError(files[1], fmt.Errorf("%s is there as well; keep one of them, or use %s", files[0], filepath.Join(o.defaultDir(), "conf.d")))
	}
	more, warnings, err := directory(filepath.Join(o.defaultDir(), "conf.d"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	return append(files, more...), warnings, nil
}

func directory(dir string) (files, warnings []string, err error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, nil, fileError(dir, err)
	}
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(dir, name)
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			continue
		}
		if slices.Contains(extensions, strings.ToLower(filepath.Ext(name))) {
			files = append(files, path)
		} else if !strings.HasSuffix(name, ".example") {
			warnings = append(warnings, oneLine(path+": not read: its name does not end in "+orList(extensions)))
		}
	}
	return files, warnings, nil
}

// fileError says what is wrong with a file as a whole; it keeps the cause for errors.Is.
func fileError(path string, err error) *Error {
	e := &Error{Source: Source{FromFile, path}, Message: err.Error(), Err: err}
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		e.Message = pathError.Op + ": " + pathError.Err.Error()
	}
	return e
}

// readFile reads a file up to just over maxFile, so that decode can refuse more. A pipe or a device is no configuration.
func readFile(path string) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return data, info.Mode(), err
}

// fingerprint tells two states of the inputs on disk apart.
type fingerprint struct{ files, resolv string }

func (o Options) fingerprint() fingerprint {
	h := sha256.New()
	files, _, err := o.discover()
	if err != nil {
		_, _ = fmt.Fprintf(h, "error %v\n", err)
	}
	for _, path := range files {
		data, _, err := readFile(path)
		_, _ = fmt.Fprintf(h, "%q %d %v %q\n", path, len(data), err, data)
	}
	servers, _ := nameservers(o.resolvConf(), systemdResolv)
	return fingerprint{string(h.Sum(nil)), strings.Join(servers, " ")}
}
