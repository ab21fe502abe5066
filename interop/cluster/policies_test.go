package cluster

import (
	"context"
	"strings"
	"testing"

	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// as speaks in somebody else's name, with every right that admission leaves.
func (s *servers) as(t *testing.T, name string, groups ...string) (kubernetes.Interface, dynamic.Interface) {
	t.Helper()
	config := rest.CopyConfig(s.admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: groups}
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	dynamic, err := dynamic.NewForConfig(config)
	must(t, err)
	return client, dynamic
}

// policies installs what keeps the audience out of users' manifests. It is the last test: tokens are kubelets' from then on.
func policies(t *testing.T, s *servers) {
	uid := s.revision(t, "shop", "policies-00001")
	before := s.create(t, pod("shop", "policies-0", "policies-00001", uid, nil))
	s.install(t, "audience-policies.yaml")
	masters := "system:masters"
	user, userDynamic := s.as(t, "jane", masters)
	replicas, _ := s.as(t, "system:serviceaccount:kube-system:replicaset-controller", masters)
	_, knative := s.as(t, "system:serviceaccount:knative-serving:controller", masters)
	kubelet, _ := s.as(t, "system:node:"+node, "system:nodes", "system:authenticated")
	dry := meta.CreateOptions{DryRun: []string{meta.DryRunAll}}
	ctx := context.Background()

	mine := pod("shop", "mine", "policies-00001", uid, func(p *core.Pod) {
		p.Spec.Containers[0].VolumeMounts = []core.VolumeMount{{Name: "tokens", MountPath: "/mine"}}
	})
	eventually(t, "the policies hold", func() bool {
		_, err := user.CoreV1().Pods("shop").Create(ctx, mine, dry)
		return err != nil && strings.Contains(err.Error(), "only the container queue-proxy")
	})
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "zipline-audience-") {
			t.Errorf("%s: not refused by a policy: %v", what, err)
		}
	}
	allowed := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := user.CoreV1().Pods("shop").Create(ctx, pod("shop", "job", "", uid, func(p *core.Pod) { p.Labels = nil }), dry)
	refused("a pod of no Revision", err)
	_, err = replicas.CoreV1().Pods("shop").Create(ctx, mine, dry)
	refused("a ReplicaSet of the user's", err)
	_, err = replicas.CoreV1().Pods("shop").Create(ctx, pod("shop", "knatives", "policies-00001", uid, nil), dry)
	allowed("the pod that Knative's Deployment makes", err)
	_, err = user.CoreV1().Pods("shop").Create(ctx, pod("shop", "ordinary", "policies-00001", uid, func(p *core.Pod) {
		p.Spec.Volumes, p.Spec.Containers[1].VolumeMounts = nil, nil
	}), dry)
	allowed("a pod without the audience", err)

	debugged := before.DeepCopy()
	debugged.Spec.EphemeralContainers = []core.EphemeralContainer{{
		EphemeralContainerCommon: core.EphemeralContainerCommon{Name: "debug", Image: "busybox", TerminationMessagePolicy: core.TerminationMessageReadFile},
	}}
	_, err = user.CoreV1().Pods("shop").UpdateEphemeralContainers(ctx, before.Name, debugged, meta.UpdateOptions{DryRun: []string{meta.DryRunAll}})
	refused("kubectl debug", err)

	services := schema.GroupVersionResource{Group: "serving.knative.dev", Version: "v1", Resource: "services"}
	service := func(audience string) *unstructured.Unstructured {
		token := map[string]any{"serviceAccountToken": map[string]any{"audience": audience, "path": "t"}}
		volume := map[string]any{"name": "v", "projected": map[string]any{"sources": []any{token}}}
		spec := map[string]any{"containers": []any{map[string]any{"image": "app"}}, "volumes": []any{volume}}
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": map[string]any{"name": "app"},
			"spec": map[string]any{"template": map[string]any{"spec": spec}},
		}}
	}
	_, err = userDynamic.Resource(services).Namespace("shop").Create(ctx, service(audience), dry)
	refused("a Service with the audience", err)
	_, err = userDynamic.Resource(services).Namespace("shop").Create(ctx, service("my-own"), dry)
	allowed("a Service with another audience", err)
	_, err = knative.Resource(services).Namespace("shop").Create(ctx, service("my-own"), dry)
	allowed("Knative's controller", err)

	token := func(client kubernetes.Interface, object *core.Pod) error {
		request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
			Audiences:      []string{audience},
			BoundObjectRef: &authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: object.Name, UID: object.UID},
		}}
		_, err := client.CoreV1().ServiceAccounts("shop").CreateToken(ctx, "default", request, meta.CreateOptions{})
		return err
	}
	refused("a token asked for by hand", token(user, before))
	// A kubelet may ask once the API server's authoriser knows that the pod is on its node.
	eventually(t, "a kubelet gets the token of a pod on its node", func() bool { return token(kubelet, before) == nil })
}

// rights checks that the controller may do what it does, and nothing beside.
func rights(t *testing.T, s *servers) {
	review := func(verb, group, resource, subresource, namespace string) bool {
		t.Helper()
		answer, err := s.client.AuthorizationV1().SubjectAccessReviews().Create(context.Background(), &authorization.SubjectAccessReview{
			Spec: authorization.SubjectAccessReviewSpec{
				User:   "system:serviceaccount:" + system + ":zipline-controller",
				Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + system, "system:authenticated"},
				ResourceAttributes: &authorization.ResourceAttributes{
					Verb: verb, Group: group, Resource: resource, Subresource: subresource, Namespace: namespace,
				},
			},
		}, meta.CreateOptions{})
		must(t, err)
		return answer.Status.Allowed
	}
	for _, allowed := range [][5]string{
		{"create", "authentication.k8s.io", "tokenreviews"}, {"get", "", "pods", "", "shop"}, {"patch", "", "pods", "", "shop"},
		{"get", "serving.knative.dev", "revisions", "", "shop"}, {"get", "", "nodes"}, {"list", "", "namespaces"}, {"watch", "", "namespaces"},
		{"list", "", "configmaps", "", system}, {"watch", "", "configmaps", "", system},
	} {
		if !review(allowed[0], allowed[1], allowed[2], allowed[3], allowed[4]) {
			t.Errorf("may not: %v", allowed)
		}
	}
	for _, refused := range [][5]string{
		{"get", "", "secrets", "", system}, {"list", "", "secrets", "", "shop"}, {"create", "", "serviceaccounts", "token", "shop"},
		{"create", "", "pods", "", "shop"}, {"delete", "", "pods", "", "shop"}, {"create", "", "pods", "exec", "shop"},
		{"patch", "", "pods", "ephemeralcontainers", "shop"}, {"list", "", "pods", "", "shop"}, {"list", "", "configmaps", "", "shop"},
		{"update", "", "configmaps", "", system}, {"patch", "", "namespaces"}, {"patch", "", "nodes"}, {"impersonate", "", "users"},
	} {
		if review(refused[0], refused[1], refused[2], refused[3], refused[4]) {
			t.Errorf("may, and should not: %v", refused)
		}
	}
}
