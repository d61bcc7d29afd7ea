package apiserver_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"weft/pkg/apiserver/apiservertest"
)

const nobody = 65534

// Another user who can open the socket, as one may when the operator gave it to a group, reads but does not write.
func TestPeerMayReadButNotWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs a process as another user")
	}
	b := &apiservertest.Backend{}
	socket := apiservertest.Serve(t, b)
	exe := publicCopy(t)
	ask := func(requests ...string) []string {
		t.Helper()
		lines := ""
		for _, r := range requests {
			method, path, _ := strings.Cut(r, " ")
			lines += method + " " + socket + " " + path + "\n"
		}
		cmd := exec.Command(exe)
		cmd.Dir = "/"
		cmd.Env = []string{helperEnv + "=" + lines}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("helper: %v: %s", err, out)
		}
		answers := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(answers) != len(requests) {
			t.Fatalf("%d answers to %d requests: %s", len(answers), len(requests), out)
		}
		return answers
	}
	if got := ask("GET /v1/networks")[0]; !strings.Contains(got, "permission denied") {
		t.Errorf("the socket's mode lets everybody connect: %s", got)
	}

	for path, mode := range map[string]os.FileMode{filepath.Dir(socket): 0o755, socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	requests := []string{
		"GET /v1/networks", "POST /v1/networks", "DELETE /v1/networks/x", "POST /v1/endpoints", "DELETE /v1/endpoints/x",
		"PUT /v1/endpoints/x/process", "DELETE /v1/nodes/x", "POST /v1/leave", "POST /v1/nonsense",
	}
	for i, got := range ask(requests...) {
		read := strings.HasPrefix(requests[i], "GET")
		if read && !strings.HasPrefix(got, "200 []") {
			t.Errorf("%s: %s", requests[i], got)
		}
		if !read && (!strings.HasPrefix(got, "403") || !strings.Contains(got, "user 65534 may read but not change anything")) {
			t.Errorf("%s: %s", requests[i], got)
		}
	}
	if status, body, err := request("POST", socket, "/v1/networks", `{"name":"mine"}`); status != 201 {
		t.Errorf("root: %d %s %v", status, body, err)
	}
}

// publicCopy puts this test binary where another user can run it.
func publicCopy(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	path := filepath.Join(dir, "helper")
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
