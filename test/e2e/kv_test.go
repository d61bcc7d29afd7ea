package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const kvURL = "http://127.0.0.1:8500/v1/kv/weft/"

// toolKV reads and writes Consul KV below weft/ with all rights there are: get PATH, put PATH BASE64, del PATH (with all
// below it), ls PATH, flood PATH COUNT SIZE.
func toolKV(args []string) (any, error) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	do := func(method, path string, body []byte) ([]byte, error) {
		req, err := http.NewRequest(method, kvURL+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != 200 && resp.StatusCode != 404 {
			err = fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, b)
		}
		if resp.StatusCode == 404 {
			b = nil
		}
		return b, err
	}
	if len(args) < 2 {
		return nil, errors.New("usage: kv VERB PATH ...")
	}
	switch args[0] {
	case "get":
		b, err := do("GET", args[1]+"?raw", nil)
		return map[string][]byte{"value": b}, err
	case "put":
		value, err := base64.StdEncoding.DecodeString(args[2])
		if err != nil {
			return nil, err
		}
		_, err = do("PUT", args[1], value)
		return struct{}{}, err
	case "fill":
		size, err := strconv.Atoi(args[3])
		if err != nil {
			return nil, err
		}
		_, err = do("PUT", args[1], bytes.Repeat([]byte(args[2]), size))
		return struct{}{}, err
	case "del":
		_, err := do("DELETE", args[1]+"?recurse", nil)
		return struct{}{}, err
	case "ls":
		b, err := do("GET", args[1]+"?keys", nil)
		var keys []string
		if err == nil && b != nil {
			err = json.Unmarshal(b, &keys)
		}
		return keys, err
	case "flood":
		count, _ := strconv.Atoi(args[2])
		size, _ := strconv.Atoi(args[3])
		var g errgroup.Group
		g.SetLimit(16)
		for i := range count {
			g.Go(func() error {
				name := fmt.Sprintf("bogus-%05d", i)
				value := []byte(fmt.Sprintf(`{"name": %q, "x": %s"%s"`, name, strings.Repeat("[", 200), strings.Repeat("x", size)))
				_, err := do("PUT", args[1]+name, value)
				if err == nil && args[1] == "nodes/" {
					_, err = do("PUT", "revs/nodes/"+name, []byte("1"))
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		return struct{}{}, nil
	}
	return nil, fmt.Errorf("unknown verb %s", args[0])
}

// kvGet, kvPut and kvDel are what somebody with all rights in Consul can do.
func (w *world) kvGet(path string) []byte {
	w.t.Helper()
	var out map[string][]byte
	w.runTool("consul", &out, "kv", "get", path)
	return out["value"]
}

func (w *world) kvPut(path string, value []byte) {
	w.t.Helper()
	var out any
	w.runTool("consul", &out, "kv", "put", path, base64.StdEncoding.EncodeToString(value))
}

func (w *world) kvDel(path string) {
	w.t.Helper()
	var out any
	w.runTool("consul", &out, "kv", "del", path)
}

func (w *world) kvList(path string) (keys []string) {
	w.t.Helper()
	w.runTool("consul", &keys, "kv", "ls", path)
	return keys
}

func (w *world) runTool(host string, v any, args ...string) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(w.run(host, tool(args...)...)), v); err != nil {
		w.t.Fatal(err)
	}
}
