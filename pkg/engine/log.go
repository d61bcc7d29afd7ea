package engine

import (
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// adaptLogger sends wireguard-go's errors to log and drops its trace. wireguard-go names peers by four characters of
// their public key from either end, but it also quotes control lines it does not understand, and a line may hold a key.
func adaptLogger(log *slog.Logger) *device.Logger {
	limit := &repeats{last: map[string]time.Time{}}
	return &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf: func(format string, args ...any) {
			text := redact(fmt.Sprintf(format, args...))
			if limit.allow(text, time.Now()) {
				log.Warn("wireguard reports", "err", text)
			}
		},
	}
}

// keyText matches what could be most of a key, in hexadecimal or base64: runs that no message of wireguard-go has.
var keyText = regexp.MustCompile(`[0-9A-Za-z+/=]{32,}`)

func redact(text string) string { return keyText.ReplaceAllString(text, "(redacted)") }

const (
	repeatAfter = time.Minute // a peer out of reach fails every 5 s (REKEY_TIMEOUT); once a minute tells as much
	maxRepeats  = 256
)

// repeats lets each text through once per repeatAfter.
type repeats struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (r *repeats) allow(text string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.last[text]; ok && now.Sub(t) < repeatAfter {
		return false
	}
	if len(r.last) >= maxRepeats {
		clear(r.last)
	}
	r.last[text] = now
	return true
}
