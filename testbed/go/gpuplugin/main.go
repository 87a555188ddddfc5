// gpuplugin is a device plugin without devices: it offers FAKE_GPUS names as nvidia.com/gpu, so that the
// kubelet itself counts and allocates them as it does on a machine with NVIDIA's own plugin.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resourceName = "nvidia.com/gpu"
	endpoint     = "falcon-fake-gpu.sock"
)

// errKubeletRestarted is why a registration is made anew: the kubelet empties its socket folder when it starts.
var errKubeletRestarted = errors.New("the kubelet has restarted")

type server struct {
	pluginapi.UnimplementedDevicePluginServer
	devices []*pluginapi.Device
	closing chan struct{}
}

func (s *server) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

// ListAndWatch sends the list once and keeps the stream open: the kubelet drops the devices when it ends.
func (s *server) ListAndWatch(_ *pluginapi.Empty, stream pluginapi.DevicePlugin_ListAndWatchServer) error {
	if err := stream.Send(&pluginapi.ListAndWatchResponse{Devices: s.devices}); err != nil {
		return err
	}
	select {
	case <-s.closing:
	case <-stream.Context().Done():
	}
	return nil
}

func (s *server) Allocate(_ context.Context, request *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	response := &pluginapi.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		ids := strings.Join(container.DevicesIds, ",")
		log.Println("allocated", ids)
		response.ContainerResponses = append(response.ContainerResponses,
			&pluginapi.ContainerAllocateResponse{Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": ids}})
	}
	return response, nil
}

func register(kubelet string) error {
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = pluginapi.NewRegistrationClient(connection).Register(ctx, &pluginapi.RegisterRequest{
		Version: pluginapi.Version, Endpoint: endpoint, ResourceName: resourceName})
	return err
}

// serve offers the devices until ctx ends (nil) or the kubelet has to be told again (an error).
func serve(ctx context.Context, folder string, devices []*pluginapi.Device) error {
	kubelet, own := filepath.Join(folder, "kubelet.sock"), filepath.Join(folder, endpoint)
	before, err := os.Stat(kubelet)
	if err != nil {
		return err
	}
	if err := os.Remove(own); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", own)
	if err != nil {
		return err
	}
	plugin := &server{devices: devices, closing: make(chan struct{})}
	rpc := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(rpc, plugin)
	go rpc.Serve(listener)
	defer rpc.Stop()
	defer close(plugin.closing)
	if err := register(kubelet); err != nil {
		return err
	}
	log.Println("registered", len(devices), resourceName)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
		now, err := os.Stat(kubelet)
		if err != nil || !os.SameFile(before, now) {
			return errKubeletRestarted
		}
		if _, err := os.Stat(own); err != nil {
			return errKubeletRestarted
		}
	}
}

func main() {
	count, err := strconv.Atoi(os.Getenv("FAKE_GPUS"))
	if err != nil {
		log.Fatalf("FAKE_GPUS is %q; it has to be a number of GPUs", os.Getenv("FAKE_GPUS"))
	}
	var devices []*pluginapi.Device
	for i := range count {
		devices = append(devices, &pluginapi.Device{ID: fmt.Sprintf("GPU-fake-%d", i), Health: pluginapi.Healthy})
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	for {
		err := serve(ctx, "/var/lib/kubelet/device-plugins", devices)
		if err == nil {
			return
		}
		log.Println("registering again:", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}
