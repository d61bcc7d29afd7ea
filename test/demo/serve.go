package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

// markerHeader carries the text that must not be seen on an encrypted network's wire.
const markerHeader = "Demo-Marker"

// serve runs h on :port until ctx ends.
func serve(ctx context.Context, port string, h http.Handler) error {
	srv := &http.Server{Addr: ":" + port, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serveAPI answers with its own name and the marker it was sent.
func serveAPI(ctx context.Context) error {
	return serve(ctx, "8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "api=%s marker=%s\n", os.Getenv("DEMO_NAME"), r.Header.Get(markerHeader))
	}))
}

// serveWeb is a reverse proxy to http://api:8080. Each request looks the name up again, so that all instances have
// their turn.
func serveWeb(ctx context.Context) error {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "api:8080"})
	proxy.Transport = &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext}
	proxy.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Demo-Web", os.Getenv("DEMO_NAME"))
		return nil
	}
	return serve(ctx, "80", proxy)
}

// get requests each URL once and prints "URL web api" per line.
func get(ctx context.Context, marker string, urls []string) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, u := range urls {
		if err := getOne(ctx, client, marker, u); err != nil {
			return err
		}
	}
	return nil
}

func getOne(ctx context.Context, client *http.Client, marker, u string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	req.Header.Set(markerHeader, marker)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", u, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", u, resp.Status)
	}
	fmt.Printf("%s %s %s", u, resp.Header.Get("Demo-Web"), body)
	return nil
}
