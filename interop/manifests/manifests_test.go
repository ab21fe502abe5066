package manifests

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	admissionv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"knative.dev/serving/pkg/deployment"
	"sigs.k8s.io/yaml"
)

func newReader(stream string) *bufio.Reader { return bufio.NewReader(strings.NewReader(stream)) }

// types are all that may be rendered, by apiVersion and kind.
var types = map[string]func() any{
	"v1 Namespace":                                              func() any { return &corev1.Namespace{} },
	"v1 ConfigMap":                                              func() any { return &corev1.ConfigMap{} },
	"v1 Secret":                                                 func() any { return &corev1.Secret{} },
	"v1 Service":                                                func() any { return &corev1.Service{} },
	"v1 ServiceAccount":                                         func() any { return &corev1.ServiceAccount{} },
	"apps/v1 Deployment":                                        func() any { return &appsv1.Deployment{} },
	"policy/v1 PodDisruptionBudget":                             func() any { return &policyv1.PodDisruptionBudget{} },
	"rbac.authorization.k8s.io/v1 Role":                         func() any { return &rbacv1.Role{} },
	"rbac.authorization.k8s.io/v1 RoleBinding":                  func() any { return &rbacv1.RoleBinding{} },
	"rbac.authorization.k8s.io/v1 ClusterRole":                  func() any { return &rbacv1.ClusterRole{} },
	"rbac.authorization.k8s.io/v1 ClusterRoleBinding":           func() any { return &rbacv1.ClusterRoleBinding{} },
	"networking.k8s.io/v1 NetworkPolicy":                        func() any { return &networkingv1.NetworkPolicy{} },
	"serving.knative.dev/v1 Service":                            func() any { return &servingv1.Service{} },
	"admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy": func() any { return &admissionv1.ValidatingAdmissionPolicy{} },
	"admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding": func() any { return &admissionv1.ValidatingAdmissionPolicyBinding{} },
	"admissionregistration.k8s.io/v1beta1 MutatingAdmissionPolicy":     func() any { return &admissionv1beta1.MutatingAdmissionPolicy{} },
	"admissionregistration.k8s.io/v1beta1 MutatingAdmissionPolicyBinding": func() any {
		return &admissionv1beta1.MutatingAdmissionPolicyBinding{}
	},
}

// objects decodes a stream strictly: an unknown field or kind fails the test.
func objects(t *testing.T, stream string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, document := range documents(t, stream) {
		var head struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal(document, &head); err != nil {
			t.Fatal(err)
		}
		make, known := types[head.APIVersion+" "+head.Kind]
		if !known {
			t.Fatalf("%s %s is no type that is known here:\n%s", head.APIVersion, head.Kind, document)
		}
		object := make()
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		key := fmt.Sprintf("%s %s/%s", head.Kind, head.Metadata.Namespace, head.Metadata.Name)
		if _, twice := all[key]; twice {
			t.Fatalf("%s is there twice", key)
		}
		all[key] = object
	}
	return all
}

func get[T any](t *testing.T, all map[string]any, key string) T {
	t.Helper()
	object, found := all[key].(T)
	if !found {
		t.Fatalf("%s is not among %v", key, names(all))
	}
	return object
}

func names(all map[string]any) []string {
	var names []string
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func TestEveryWayRendersTheSame(t *testing.T) {
	base := objects(t, kustomize(t))
	fromCommand := objects(t, dryRun(t))
	chart, err := helm(t, "v1beta1", map[string]any{"secrets": map[string]any{"create": false}})
	if err != nil {
		t.Fatal(err)
	}
	fromChart := objects(t, chart)
	// Helm makes namespaces by itself.
	delete(base, "Namespace /zipline-system")
	delete(fromCommand, "Namespace /zipline-system")
	for way, rendered := range map[string]map[string]any{"the command": fromCommand, "the chart": fromChart} {
		if !reflect.DeepEqual(names(rendered), names(base)) {
			t.Fatalf("%s renders %v,\nkustomize %v", way, names(rendered), names(base))
		}
		for name := range base {
			if !reflect.DeepEqual(rendered[name], base[name]) {
				t.Errorf("%s renders another %s:\n%+v\n%+v", way, name, rendered[name], base[name])
			}
		}
	}
}

func TestControllerPod(t *testing.T) {
	all := objects(t, kustomize(t))
	pod := get[*appsv1.Deployment](t, all, "Deployment zipline-system/zipline-controller").Spec.Template
	container := pod.Spec.Containers[0]
	// What the restricted Pod Security profile demands.
	security, of := pod.Spec.SecurityContext, container.SecurityContext
	if !*security.RunAsNonRoot || *security.RunAsUser == 0 || security.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*of.AllowPrivilegeEscalation || !*of.ReadOnlyRootFilesystem || len(of.Capabilities.Drop) != 1 || of.Capabilities.Drop[0] != "ALL" {
		t.Errorf("not restricted: %+v %+v", security, of)
	}
	for _, volume := range pod.Spec.Volumes {
		if *volume.Secret.DefaultMode != 0o440 {
			t.Errorf("%s has mode %o", volume.Name, *volume.Secret.DefaultMode)
		}
	}
	service := get[*corev1.Service](t, all, "Service zipline-system/zipline-controller")
	budget := get[*policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget zipline-system/zipline-controller")
	for name, value := range service.Spec.Selector {
		if pod.Labels[name] != value || budget.Spec.Selector.MatchLabels[name] != value {
			t.Errorf("%s=%s selects nothing", name, value)
		}
	}
	if port := service.Spec.Ports[0]; port.Port != 8443 || port.TargetPort.StrVal != container.Ports[0].Name {
		t.Errorf("%+v does not lead to %+v", port, container.Ports)
	}
}

func TestEverythingOfTheChart(t *testing.T) {
	values := map[string]any{
		"mode": "off", "replicas": 1, "canary": map[string]any{"enabled": true},
		"images":          map[string]any{"controller": "r/c@sha256:1", "queueProxy": "r/q@sha256:2"},
		"networkPolicies": map[string]any{"restrict": []any{"open"}, "allow": []any{"closed"}},
	}
	stream, err := helm(t, "v1beta1", values)
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, stream)
	config := get[*corev1.ConfigMap](t, all, "ConfigMap zipline-system/zipline-config")
	if config.Data["mode"] != "off" || config.Data["queue-proxy-images"] != "r/q@sha256:2" {
		t.Errorf("%v", config.Data)
	}
	controller := get[*appsv1.Deployment](t, all, "Deployment zipline-system/zipline-controller").Spec
	if *controller.Replicas != 1 || controller.Template.Spec.Containers[0].Image != "r/c@sha256:1" {
		t.Errorf("%+v", controller)
	}
	if strings.Contains(stream, "registry.example") {
		t.Error("an example is left")
	}
	for _, namespace := range []string{"open", "closed"} {
		policy := get[*networkingv1.NetworkPolicy](t, all, "NetworkPolicy "+namespace+"/zipline-data-port")
		if port := policy.Spec.Ingress[0].Ports[0].Port.IntVal; port != 8031 {
			t.Errorf("%s opens %d", namespace, port)
		}
	}
	master := get[*corev1.Secret](t, all, "Secret zipline-system/zipline-master")
	if len(master.Data["1"]) != 44 || master.Annotations["helm.sh/resource-policy"] != "keep" {
		t.Errorf("a master key of %d characters", len(master.Data["1"]))
	}
	serving := get[*corev1.Secret](t, all, "Secret zipline-system/zipline-controller-tls")
	authority := get[*corev1.Secret](t, all, "Secret zipline-system/zipline-ca")
	if string(serving.Data["ca.crt"]) != string(authority.Data["tls.crt"]) || len(serving.Data["tls.key"]) == 0 {
		t.Error("the certificate is not of the authority")
	}
}

func TestChartRefusesWhatItCannotDo(t *testing.T) {
	for _, bad := range []struct {
		values map[string]any
		word   string
	}{
		{map[string]any{"mode": "maybe"}, "mode"},
		{map[string]any{"canary": map[string]any{"enabled": true}}, "MutatingAdmissionPolicy"},
	} {
		if _, err := helm(t, "v0", bad.values); err == nil || !strings.Contains(err.Error(), bad.word) {
			t.Errorf("%v: %v", bad.values, err)
		}
	}
}

// What is set cluster-wide is read by Knative's own code.
func TestKnativeReadsTheSettings(t *testing.T) {
	stream := dryRun(t, "--cluster-wide", "--canary", "shop", "--network-policy", "restrict")
	// The library has no v1 of it yet.
	all := objects(t, strings.ReplaceAll(stream, "admissionregistration.k8s.io/v1\nkind: Mutating", "admissionregistration.k8s.io/v1beta1\nkind: Mutating"))
	set := get[*corev1.ConfigMap](t, all, "ConfigMap knative-serving/config-deployment")
	config, err := deployment.NewConfigFromConfigMap(set)
	if err != nil {
		t.Fatal(err)
	}
	if config.QueueSidecarImage != queueProxyImage || !config.QueueSidecarTokenAudiences.Has("zipline-controller") ||
		config.QueueSidecarRootCA != strings.TrimSpace(certificate) {
		t.Errorf("%+v", config)
	}
	features := get[*corev1.ConfigMap](t, all, "ConfigMap knative-serving/config-features")
	if features.Data["queueproxy.mount-podinfo"] != "enabled" {
		t.Errorf("%v", features.Data)
	}
	if get[*corev1.Namespace](t, all, "Namespace /shop").Labels["zipline.internal/canary"] != "true" {
		t.Error("shop is no canary")
	}
	get[*networkingv1.NetworkPolicy](t, all, "NetworkPolicy shop/zipline-data-port")
}

// Injected Services are still Services, with nothing lost.
func TestInject(t *testing.T) {
	folder, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(folder) == 0 {
		t.Fatal(folder, err)
	}
	for _, path := range folder {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		injected := zipline(t, string(text), "knative", "inject", "--mode", "on", "--mesh", "istio")
		if again := zipline(t, injected, "knative", "inject", "--mode", "on", "--mesh", "istio"); again != injected {
			t.Errorf("%s: a second time it changes", path)
		}
		before, after := objects(t, string(text)), objects(t, injected)
		for key, object := range before {
			service, isService := object.(*servingv1.Service)
			if !isService {
				if !reflect.DeepEqual(object, after[key]) {
					t.Errorf("%s: %s changed", path, key)
				}
				continue
			}
			got := get[*servingv1.Service](t, after, key)
			for index := range got.Spec.Template.Spec.Containers {
				values := map[string]string{}
				for _, variable := range got.Spec.Template.Spec.Containers[index].Env {
					values[variable.Name] = variable.Value
				}
				if values["http_proxy"] != values["HTTP_PROXY"] || values["ZIPLINE_API"] != "http://127.0.0.1:8030" ||
					!strings.Contains(values["NO_PROXY"], "kubernetes.default.svc") {
					t.Errorf("%s: %s has %v", path, key, values)
				}
			}
			if got.Spec.Template.Annotations["zipline.internal/mode"] != "on" {
				t.Errorf("%s: %s has %v", path, key, got.Spec.Template.Annotations)
			}
			// Without what was added, it is what it was.
			for index := range got.Spec.Template.Spec.Containers {
				got.Spec.Template.Spec.Containers[index].Env = service.Spec.Template.Spec.Containers[index].Env
			}
			got.Spec.Template.Annotations = service.Spec.Template.Annotations
			if !reflect.DeepEqual(service, got) {
				t.Errorf("%s: %s changed:\n%+v\n%+v", path, key, service, got)
			}
			got.SetDefaults(t.Context())
			if err := got.Validate(t.Context()).Filter(apis.ErrorLevel); err != nil {
				t.Errorf("%s: %s: %v", path, key, err)
			}
		}
		for _, line := range strings.Split(string(text), "\n") {
			if !strings.Contains(injected, line) {
				t.Errorf("%s: the line %q is gone", path, line)
			}
		}
	}
}
