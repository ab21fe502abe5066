// Package role holds what must live inside a network namespace as a process of its own: Knative's activator, and clients of
// Knative that open their own connections. The suite starts itself again to play a role.
package role

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	netapi "knative.dev/networking/pkg/apis/networking"
	netcfg "knative.dev/networking/pkg/config"
	netprobe "knative.dev/networking/pkg/http/probe"
	fakekubeclient "knative.dev/pkg/client/injection/kube/client/fake"
	_ "knative.dev/pkg/client/injection/kube/informers/core/v1/endpoints/fake"
	_ "knative.dev/pkg/client/injection/kube/informers/core/v1/service/fake"
	"knative.dev/pkg/controller"
	"knative.dev/pkg/injection"
	"knative.dev/pkg/logging"
	pkgnet "knative.dev/pkg/network"
	activatorconfig "knative.dev/serving/pkg/activator/config"
	"knative.dev/serving/pkg/activator/handler"
	activatornet "knative.dev/serving/pkg/activator/net"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	fakeservingclient "knative.dev/serving/pkg/client/injection/client/fake"
	revisioninformer "knative.dev/serving/pkg/client/injection/informers/serving/v1/revision"
	_ "knative.dev/serving/pkg/client/injection/informers/serving/v1/revision/fake"
	httphandler "knative.dev/serving/pkg/http/handler"
	servingnet "knative.dev/serving/pkg/networking"
)

// ActivatorPort is where the activator listens inside the namespace.
const ActivatorPort = 9012

const namespace, revision = "default", "echo-00001"

// Activator serves Knative's activation chain with its throttler, which probes the pod itself before it sends anything.
// Kubernetes is Knative's own fake of it: one revision, one endpoint at 127.0.0.1 that is not known to be ready. It returns only with an error.
func Activator() error {
	ctx := logging.WithLogger(context.Background(), zap.NewNop().Sugar())
	ctx, informers := injection.Fake.SetupInformers(ctx, &rest.Config{})
	protocol, port, portName := netapi.ProtocolHTTP1, int32(8012), "http"
	if os.Getenv("INTEROP_H2C") != "" {
		protocol, port, portName = netapi.ProtocolH2C, 8013, "http2"
	}
	if err := controller.StartInformers(ctx.Done(), informers...); err != nil {
		return err
	}
	transport := pkgnet.NewProxyAutoTransport(100, 100)
	throttler := activatornet.NewThrottler(ctx, "127.0.0.9")
	go throttler.Run(ctx, transport, false, netcfg.MeshCompatibilityModeDisabled)
	if err := pods(ctx, protocol, port, portName); err != nil {
		return err
	}
	store := activatorconfig.NewStore(logging.FromContext(ctx))
	store.OnConfigChanged(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: netcfg.ConfigMapName}})

	chain := handler.New(ctx, throttler, transport, false, logging.FromContext(ctx), false, nil, nil)
	chain = httphandler.NewTimeoutHandler(chain, "activator request timeout",
		func(*http.Request) (time.Duration, time.Duration, time.Duration) { return 30 * time.Second, 0, 0 },
		logging.FromContext(ctx))
	chain = handler.WrapActivatorHandlerWithFullDuplex(chain, logging.FromContext(ctx))
	chain = handler.NewContextHandler(ctx, chain, store)
	chain = &handler.ProbeHandler{NextHandler: chain}
	chain = netprobe.NewHandler(chain)
	return pkgnet.NewServer(fmt.Sprintf("127.0.0.1:%d", ActivatorPort), chain).ListenAndServe()
}

// pods tells the informers of one revision with one ready pod.
func pods(ctx context.Context, protocol netapi.ProtocolType, port int32, portName string) error {
	rev := &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: revision}}
	rev.Spec.Containers = []corev1.Container{{Name: "user-container", Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}}
	if protocol == netapi.ProtocolH2C {
		rev.Spec.Containers[0].Ports[0].Name = "h2c"
	}
	rev.SetDefaults(ctx)
	if _, err := fakeservingclient.Get(ctx).ServingV1().Revisions(namespace).Create(ctx, rev, metav1.CreateOptions{}); err != nil {
		return err
	}
	// Endpoints of a revision that the throttler does not know yet would be forgotten.
	for {
		if _, err := revisioninformer.Get(ctx).Lister().Revisions(namespace).Get(revision); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	endpoints := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: revision + "-private", Labels: map[string]string{
			serving.RevisionLabelKey: revision, serving.RevisionUID: "1",
			servingnet.ServiceTypeKey: string(servingnet.ServiceTypePrivate), servingnet.SKSLabelKey: revision,
		}},
		Subsets: []corev1.EndpointSubset{{
			NotReadyAddresses: []corev1.EndpointAddress{{IP: "127.0.0.1"}},
			Ports:             []corev1.EndpointPort{{Name: portName, Port: port}},
		}},
	}
	_, err := fakekubeclient.Get(ctx).CoreV1().Endpoints(namespace).Create(ctx, endpoints, metav1.CreateOptions{})
	return err
}
