package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const (
	system   = "zipline-system"
	audience = "zipline-controller"
	image    = "registry.example/zipline/zipline-queue-proxy:0.1.0"
	node     = "node-1"
	zone     = "eu-central-1a"
)

var revisions = schema.GroupVersionResource{Group: "serving.knative.dev", Version: "v1", Resource: "revisions"}

// resources names the resource of every kind that deploy/base installs, and whether it lives in a namespace.
var resources = map[string]struct {
	name       string
	namespaced bool
}{
	"Namespace":                        {"namespaces", false},
	"ConfigMap":                        {"configmaps", true},
	"ServiceAccount":                   {"serviceaccounts", true},
	"ClusterRole":                      {"clusterroles", false},
	"ClusterRoleBinding":               {"clusterrolebindings", false},
	"Role":                             {"roles", true},
	"RoleBinding":                      {"rolebindings", true},
	"ValidatingAdmissionPolicy":        {"validatingadmissionpolicies", false},
	"ValidatingAdmissionPolicyBinding": {"validatingadmissionpolicybindings", false},
	"CustomResourceDefinition":         {"customresourcedefinitions", false},
}

// install applies a file of deploy/base.
func (s *servers) install(t *testing.T, name string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "deploy", "base", name))
	must(t, err)
	s.apply(t, content)
}

func (s *servers) apply(t *testing.T, content []byte) {
	t.Helper()
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := documents.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		if len(object.Object) == 0 {
			continue
		}
		kind, known := resources[object.GetKind()]
		if !known {
			t.Fatalf("no resource is known for kind %s", object.GetKind())
		}
		resource := object.GroupVersionKind().GroupVersion().WithResource(kind.name)
		options := meta.ApplyOptions{FieldManager: "installer", Force: true}
		if kind.namespaced {
			_, err = s.dynamic.Resource(resource).Namespace(object.GetNamespace()).Apply(context.Background(), object.GetName(), object, options)
		} else {
			_, err = s.dynamic.Resource(resource).Apply(context.Background(), object.GetName(), object, options)
		}
		if err != nil {
			t.Fatalf("%s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
}

// definitions are Knative's kinds as far as they matter here: the API server knows them and keeps every field.
func (s *servers) definitions(t *testing.T) {
	t.Helper()
	for kind, plural := range map[string]string{"Revision": "revisions", "Service": "services", "Configuration": "configurations"} {
		definition := strings.NewReplacer("KIND", kind, "PLURAL", plural, "SINGULAR", strings.ToLower(kind)).Replace(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.serving.knative.dev}
spec:
  group: serving.knative.dev
  scope: Namespaced
  names: {kind: KIND, plural: PLURAL, singular: SINGULAR}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
`)
		s.apply(t, []byte(definition))
	}
}

func (s *servers) namespace(t *testing.T, name string) {
	t.Helper()
	_, err := s.client.CoreV1().Namespaces().Create(context.Background(),
		&core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name}}, meta.CreateOptions{})
	must(t, err)
	_, err = s.client.CoreV1().ServiceAccounts(name).Create(context.Background(),
		&core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "default"}}, meta.CreateOptions{})
	must(t, err)
}

// revision makes a Revision and gives its UID.
func (s *servers) revision(t *testing.T, namespace, name string) types.UID {
	t.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "serving.knative.dev/v1", "kind": "Revision", "metadata": map[string]any{"name": name},
	}}
	var made *unstructured.Unstructured
	eventually(t, "the API server serves Revisions", func() bool {
		var err error
		made, err = s.dynamic.Resource(revisions).Namespace(namespace).Create(context.Background(), object, meta.CreateOptions{})
		return err == nil
	})
	return made.GetUID()
}

// pod is what Knative's ReplicaSet makes of a Revision, changed by change.
func pod(namespace, name, revision string, uid types.UID, change func(*core.Pod)) *core.Pod {
	seconds := int64(3600)
	made := &core.Pod{
		ObjectMeta: meta.ObjectMeta{
			Namespace: namespace, Name: name,
			Labels: map[string]string{"serving.knative.dev/revision": revision, "serving.knative.dev/revisionUID": string(uid)},
		},
		Spec: core.PodSpec{
			ServiceAccountName: "default",
			NodeName:           node,
			Containers: []core.Container{
				{Name: "user-container", Image: "registry.example/app"},
				{Name: "queue-proxy", Image: image, VolumeMounts: []core.VolumeMount{{Name: "tokens", MountPath: "/var/run/secrets/tokens"}}},
			},
			Volumes: []core.Volume{{Name: "tokens", VolumeSource: core.VolumeSource{Projected: &core.ProjectedVolumeSource{
				Sources: []core.VolumeProjection{{ServiceAccountToken: &core.ServiceAccountTokenProjection{
					Audience: audience, ExpirationSeconds: &seconds, Path: audience,
				}}},
			}}}},
		},
	}
	if change != nil {
		change(made)
	}
	return made
}

func (s *servers) create(t *testing.T, object *core.Pod) *core.Pod {
	t.Helper()
	made, err := s.client.CoreV1().Pods(object.Namespace).Create(context.Background(), object, meta.CreateOptions{})
	must(t, err)
	return made
}

func (s *servers) remove(t *testing.T, object *core.Pod) {
	t.Helper()
	now := int64(0)
	must(t, s.client.CoreV1().Pods(object.Namespace).Delete(context.Background(), object.Name, meta.DeleteOptions{GracePeriodSeconds: &now}))
}

// tokenOf asks for a token bound to a pod, as its kubelet does.
func (s *servers) tokenOf(t *testing.T, object *core.Pod, audiences ...string) string {
	t.Helper()
	return s.request(t, object.Namespace, object.Spec.ServiceAccountName,
		&authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: object.Name, UID: object.UID}, audiences...)
}

// request asks for a token of an account; without an audience it is for the API server.
func (s *servers) request(t *testing.T, namespace, account string, bound *authentication.BoundObjectReference, audiences ...string) string {
	t.Helper()
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{Audiences: audiences, BoundObjectRef: bound}}
	answer, err := s.client.CoreV1().ServiceAccounts(namespace).CreateToken(context.Background(), account, request, meta.CreateOptions{})
	must(t, err)
	return answer.Status.Token
}
