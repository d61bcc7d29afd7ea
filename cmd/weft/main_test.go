package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"weft/pkg/netns/netnstest"
)

// mainEnv makes this test binary behave as weft: spawn starts /proc/self/exe, and some tests start it themselves.
const mainEnv = "WEFT_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(countEnv) != "" {
		countInterrupts()
	}
	if os.Getenv(mainEnv) != "" {
		main()
		return
	}
	netnstest.Main(m)
}

// weft runs one command line in this process against a socket.
func weft(t *testing.T, socket string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("WEFT_SOCKET", socket)
	var out, errs bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, resolvDir: t.TempDir()}
	code = a.main(context.Background(), args)
	return code, out.String(), errs.String()
}
