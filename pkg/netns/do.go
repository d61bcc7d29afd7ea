package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs fn inside the named namespace, on an operating system thread that nothing else uses meanwhile; "" is the
// caller's own namespace and a plain call. Goroutines that fn starts are not inside. It returns fn's error, or an
// os.ErrNotExist when there is no such namespace. Safe for concurrent use.
func Do(name string, fn func() error) error {
	if name == "" {
		return fn()
	}
	return DoPath(Path(name), fn)
}

// DoPath is Do for a namespace given by its path.
func DoPath(path string, fn func() error) error {
	f, err := open(path)
	if err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	defer f.Close()
	return onThread(func() error {
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", path, err)
		}
		return fn()
	})
}

// onThread runs fn in a goroutine with a thread of its own, whose network namespace fn may change. The thread goes
// back to use only when it is in its old namespace again; otherwise it ends with the goroutine.
func onThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errors.New("namespace function ended its goroutine") // runtime.Goexit in fn
		defer func() { result <- err }()
		runtime.LockOSThread()
		home, e := os.Open("/proc/thread-self/ns/net")
		if e != nil {
			runtime.UnlockOSThread()
			err = e
			return
		}
		defer func() {
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			home.Close()
		}()
		err = fn()
	}()
	return <-result
}
