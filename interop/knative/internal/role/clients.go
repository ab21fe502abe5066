package role

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	netcfg "knative.dev/networking/pkg/config"
	netheader "knative.dev/networking/pkg/http/header"
	"knative.dev/networking/pkg/prober"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	"knative.dev/serving/pkg/autoscaler/metrics"
	"knative.dev/serving/pkg/resources"
)

// Play plays the role that the environment names; false if it names none.
func Play() bool {
	var err error
	switch os.Getenv("INTEROP_ROLE") {
	case "":
		return false
	case "activator":
		err = Activator()
	case "scrape":
		err = scrape()
	case "probe":
		err = probe()
	default:
		err = fmt.Errorf("no such role")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// scrape asks the pod as the autoscaler does and prints the Stat.
func scrape() error {
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	start := metav1.NewTime(time.Now().Add(-time.Hour))
	if err := indexer.Add(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "pod", Labels: map[string]string{serving.RevisionLabelKey: revision}, CreationTimestamp: start,
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "127.0.0.1", StartTime: &start,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}); err != nil {
		return err
	}
	metric := &autoscalingv1alpha1.Metric{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: revision, Labels: map[string]string{serving.RevisionLabelKey: revision},
	}}
	accessor := resources.NewPodAccessor(corev1listers.NewPodLister(indexer), namespace, revision)
	scraper := metrics.NewStatsScraper(metric, revision, accessor, false, netcfg.MeshCompatibilityModeDisabled, zap.NewNop().Sugar(), otel.GetMeterProvider())
	stat, err := scraper.Scrape(time.Minute)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(stat)
}

// probe asks as Knative's network prober does, as activator, autoscaler and ingress would.
func probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for name, options := range map[string][]any{
		"activator": {prober.WithHeader(netheader.UserAgentKey, netheader.ActivatorUserAgent), prober.WithHeader(netheader.ProbeKey, "queue"),
			prober.WithPath("/healthz"), prober.ExpectsBody("queue"), prober.ExpectsStatusCodes([]int{200})},
		"autoscaler": {prober.WithHeader(netheader.UserAgentKey, netheader.AutoscalingUserAgent), prober.WithHeader(netheader.ProbeKey, "activator"),
			prober.WithPath("/healthz"), prober.ExpectsBody("activator"), prober.ExpectsStatusCodes([]int{200})},
		"ingress": {prober.WithHeader(netheader.ProbeKey, netheader.ProbeValue), prober.WithHeader(netheader.HashKey, "h4sh"),
			prober.ExpectsHeader(netheader.HashKey, "h4sh"), prober.ExpectsStatusCodes([]int{200})},
	} {
		healthy, err := prober.Do(ctx, http.DefaultTransport, "http://127.0.0.1:8012", options...)
		fmt.Printf("%s: %v, %v\n", name, healthy, err)
	}
	return nil
}
