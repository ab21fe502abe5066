package interop

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	netcfg "knative.dev/networking/pkg/config"
	"knative.dev/pkg/apis"
	"knative.dev/pkg/logging"
	apiconfig "knative.dev/serving/pkg/apis/config"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	autoscalerconfig "knative.dev/serving/pkg/autoscaler/config"
	"knative.dev/serving/pkg/deployment"
	"knative.dev/serving/pkg/observability"
	confresources "knative.dev/serving/pkg/reconciler/configuration/resources"
	revconfig "knative.dev/serving/pkg/reconciler/revision/config"
	"knative.dev/serving/pkg/reconciler/revision/resources"
	svcresources "knative.dev/serving/pkg/reconciler/service/resources"
	"sigs.k8s.io/yaml"

	"zipline.internal/interop/knative/internal/wire"
)

//go:embed services.yaml
var servicesText []byte

// manifest is one Service and the cluster's settings it meets.
type manifest struct {
	ID            string            `json:"id"`
	Title         string            `json:"title"`
	Service       servingv1.Service `json:"service"`
	Features      map[string]string `json:"features"`
	Observability map[string]string `json:"observability"`
	Logging       map[string]string `json:"logging"`
	Network       map[string]string `json:"network"`
	Deployment    map[string]string `json:"deployment"`
	// Extra are ports on which further containers listen.
	Extra []int `json:"extra"`
	// Health is a port on which gRPC's health service answers.
	Health int `json:"health"`
	// Broken is the change of a variable that must be noticed, and where.
	Broken struct{ Variable, Value, Fact string } `json:"broken"`
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("interop data: %v", err))
	}
	return value
}

// queueProxy builds the Deployment as Knative's controllers do and returns its queue-proxy.
func (m *manifest) queueProxy() (corev1.Container, *servingv1.Revision) {
	if m.Deployment == nil {
		m.Deployment = map[string]string{}
	}
	m.Deployment["queue-sidecar-image"] = "registry.example/zipline-queue-proxy"
	config := &revconfig.Config{
		Config: &apiconfig.Config{
			Defaults:   must(apiconfig.NewDefaultsConfigFromMap(nil)),
			Features:   must(apiconfig.NewFeaturesConfigFromMap(m.Features)),
			Autoscaler: must(autoscalerconfig.NewConfigFromMap(nil)),
		},
		Deployment:    must(deployment.NewConfigFromMap(m.Deployment)),
		Logging:       must(logging.NewConfigFromMap(m.Logging)),
		Network:       must(netcfg.NewConfigFromMap(m.Network)),
		Observability: must(observability.NewFromMap(m.Observability)),
	}
	ctx := apiconfig.ToContext(context.Background(), config.Config)
	service := m.Service.DeepCopy()
	service.Namespace, service.Generation = "default", 1
	service.SetDefaults(ctx)
	if err := service.Validate(ctx).Filter(apis.ErrorLevel); err != nil {
		panic(fmt.Sprintf("%s is no Service: %v", m.ID, err))
	}
	configuration := svcresources.MakeConfiguration(service)
	configuration.Generation = 1
	revision := confresources.MakeRevision(ctx, configuration, time.Unix(0, 0))
	revision.SetDefaults(ctx)
	made := must(resources.MakeDeployment(revision, config))
	for _, container := range made.Spec.Template.Spec.Containers {
		if container.Name == resources.QueueContainerName {
			return container, revision
		}
	}
	panic("the Deployment has no queue-proxy")
}

// variables are what the kubelet would set.
func variables(container corev1.Container) map[string]string {
	out := map[string]string{"HOSTNAME": "pod-1"}
	for _, variable := range container.Env {
		value := variable.Value
		if variable.ValueFrom != nil {
			value = map[string]string{"metadata.name": "pod-1", "status.podIP": "127.0.0.1", "status.hostIP": "10.1.1.1"}[variable.ValueFrom.FieldRef.FieldPath]
		}
		out[variable.Name] = value
	}
	return out
}

// scenario starts the queue-proxy of the manifest as its pod would, until the kubelet's own probe is content.
func (m *manifest) scenario() *scenario {
	return &scenario{
		id: m.ID, title: m.Title,
		broken: settings(m.Broken.Fact, m.Broken.Variable, m.Broken.Value),
		run: func(r *run) {
			container, revision := m.queueProxy()
			r.env = variables(container)
			r.function(func(w http.ResponseWriter, request *http.Request) {
				if strings.HasPrefix(request.URL.Path, "/health") {
					ok(w, request)
					return
				}
				if request.URL.Path == "/late" {
					<-request.Context().Done()
					return
				}
				r.echo(w, request)
			})
			if m.Health != 0 {
				r.grpcFunction(m.Health, "", grpc_health_v1.HealthCheckResponse_SERVING)
			}
			for _, port := range m.Extra {
				r.functionOn(port, ok)
			}
			if len(container.VolumeMounts) > 0 {
				r.certificates("data-plane.knative.dev", "kn-user-default")
			}
			r.start()
			r.ports(container)
			probe := container.ReadinessProbe.HTTPGet
			request := wire.Request{Port: probe.Port.IntValue(), Path: probe.Path, Header: []string{"User-Agent: kube-probe/1.34"}, Patience: 3 * time.Second}
			for _, header := range probe.HTTPHeaders {
				request.Header = append(request.Header, header.Name+": "+header.Value)
			}
			// The kubelet's defaults: failing three times is failing.
			var reply *wire.Reply
			for range 3 {
				if reply = r.Do(request); reply.Status() == http.StatusOK {
					break
				}
			}
			reply.Note(r.Observation, "kubelet's probe")
			h2 := revision.GetProtocol() == "h2c"
			r.do("request", wire.Request{H2: h2, Method: "POST", Path: "/x", Body: strings.NewReader("some"), Length: 4, Patience: 3 * time.Second,
				Header: []string{"X-Forwarded-For: 10.0.0.1"}})
			if *revision.Spec.TimeoutSeconds < 5 || revision.Spec.ResponseStartTimeoutSeconds != nil || revision.Spec.IdleTimeoutSeconds != nil {
				r.do("late request", wire.Request{H2: h2, Path: "/late", Patience: 4 * time.Second})
			}
			r.capacity(h2)
			stat, err := r.stat()
			r.must(err)
			r.Note("stat pod", "%s", stat.PodName)
			r.Note("then", "%s", r.process.Exit())
		},
	}
}

// ports notes which of the ports that the container declares are open. A queue-proxy that is ready may open the others a little
// later.
func (r *run) ports(container corev1.Container) {
	ports := slices.Clone(container.Ports)
	slices.SortFunc(ports, func(a, b corev1.ContainerPort) int { return strings.Compare(a.Name, b.Name) })
	for _, port := range ports {
		r.within("port "+port.Name, func() bool {
			conn, err := r.namespace.Dial(int(port.ContainerPort))
			if err != nil {
				return false
			}
			conn.Close()
			return true
		})
	}
}

// capacity notes how many requests run at once, of twelve.
func (r *run) capacity(h2 bool) {
	if r.env["CONTAINER_CONCURRENCY"] != "1" {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	port := atoi(r.env["QUEUE_SERVING_PORT"])
	r.Transport(port, h2)
	for range 11 {
		go r.Open(ctx, wire.Request{Port: port, H2: h2, Path: "/late"})
	}
	r.within("eleven admitted", func() bool { return admitted(r) >= 11 })
	r.do("twelfth", wire.Request{Port: port, H2: h2, Patience: 2 * time.Second})
}

func loadServices() []*scenario {
	var manifests []*manifest
	if err := yaml.UnmarshalStrict(servicesText, &manifests); err != nil {
		panic(fmt.Sprintf("services.yaml: %v", err))
	}
	var all []*scenario
	for _, m := range manifests {
		all = append(all, m.scenario())
	}
	return all
}

var services = loadServices()
