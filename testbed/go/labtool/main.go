// labtool is the one static program of the testbed's own images: the pause container, a small HTTP server and
// the few probes that the testbed's tests run inside pods.
//
//	labtool pause                 holds a pod's namespaces and reaps its orphans until SIGTERM
//	labtool serve [ADDRESS]       answers every GET with its host name (default :8080)
//	labtool get URL [COUNT]       prints COUNT answers; exits 1 when one fails
//	labtool dial ADDRESS          opens one TCP connection; prints the error and exits 1 when it cannot
//	labtool lookup NAME           prints the addresses of a DNS name
//	labtool env NAME              prints an environment variable
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const timeout = 5 * time.Second

func main() {
	arguments := append(os.Args[1:], "", "", "") // each may be left out
	if err := run(arguments[0], arguments[1], arguments[2]); err != nil {
		fmt.Fprintln(os.Stderr, "labtool:", err)
		os.Exit(1)
	}
}

func run(command, first, second string) error {
	switch command {
	case "", "pause":
		return pause()
	case "serve":
		return serve(first)
	case "get":
		return get(first, second)
	case "dial":
		connection, err := net.DialTimeout("tcp", first, timeout)
		if err != nil {
			return err
		}
		return connection.Close()
	case "lookup":
		addresses, err := net.LookupHost(first)
		for _, address := range addresses {
			fmt.Println(address)
		}
		return err
	case "env":
		fmt.Println(os.Getenv(first))
		return nil
	}
	return fmt.Errorf("%q is not a command", command)
}

func pause() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return nil
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
	return nil
}

func serve(address string) error {
	if address == "" {
		address = ":8080"
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, host)
	})}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ctx.Done()
		deadline, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		server.Shutdown(deadline)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func get(url, count string) error {
	times := 1
	if count != "" {
		var err error
		if times, err = strconv.Atoi(count); err != nil {
			return err
		}
	}
	// a connection each, so that a Service spreads the requests over its pods
	client := http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	for range times {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, response.Body)
		response.Body.Close()
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s", url, response.Status)
		}
	}
	return nil
}
