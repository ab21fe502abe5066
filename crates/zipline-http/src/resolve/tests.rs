use super::*;
use std::collections::HashMap;
use tokio::net::UdpSocket;
use zipline_runtime::Tasks;

/// A DNS server that knows some A records and keeps the questions it was asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: Tasks,
}

impl Server {
    async fn new(known: &[(&str, [u8; 4])]) -> Self {
        let known: HashMap<String, [u8; 4]> =
            known.iter().map(|(name, ip)| ((*name).to_owned(), *ip)).collect();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let (tasks, asked) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        let questions = Arc::clone(&asked);
        tasks.spawn("fake-dns", async move {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let (name, is_a, reply) = answer(&buffer[..length], &known);
                if is_a {
                    questions.lock().push(name);
                }
                socket.send_to(&reply, peer).await.unwrap();
            }
        });
        Self { port, asked, _tasks: tasks }
    }
}

/// The question's name, whether it asks for A, and the reply.
fn answer(query: &[u8], known: &HashMap<String, [u8; 4]>) -> (String, bool, Vec<u8>) {
    let (mut at, mut name) = (12, String::new());
    while query[at] != 0 {
        let length = usize::from(query[at]);
        name.push_str(std::str::from_utf8(&query[at + 1..=at + length]).unwrap());
        name.push('.');
        at += length + 1;
    }
    let end = at + 5;
    let is_a = query[at + 1..at + 3] == [0, 1];
    let name = name.to_ascii_lowercase();
    let found = known.get(&name);
    let (code, count) = match (found, is_a) {
        (Some(_), true) => (0, 1),
        (Some(_), false) => (0, 0),
        (None, _) => (3, 0),
    };
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    reply.extend(&query[12..end]);
    if let (Some(ip), 1) = (found, count) {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        reply.extend(ip);
    }
    (name, is_a, reply)
}

/// Files as in a pod, except for the server's port, which the tests set on the parsed configuration.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(hosts: &str, resolv_conf: &str) -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        files.write("hosts", hosts);
        files.write("resolv.conf", resolv_conf);
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn resolver(&self) -> Resolver {
        Resolver::with_files(self.directory.path().join("hosts"), self.directory.path().join("resolv.conf"))
    }
}

/// resolv.conf has no ports, so the servers that the file names are sent to the fake's.
fn redirect(resolver: &Resolver, resolv_conf: &str, port: u16) {
    let (config, options) = system_conf::parse_resolv_conf(resolv_conf).unwrap();
    let mut servers = config.name_servers().to_vec();
    for connection in servers.iter_mut().flat_map(|server| &mut server.connections) {
        connection.port = port;
    }
    let config = ResolverConfig::from_parts(None, config.search().to_vec(), servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = tuned(options);
    let mut state = resolver.inner.state();
    state.looked = Instant::now() + Duration::from_secs(3600);
    state.dns = Ok(builder.build().unwrap());
    *resolver.inner.state.lock() = Some(state);
}

const POD: &str = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.0.0.1\noptions ndots:5\n";

async fn ips(resolver: &Resolver, host: &str) -> io::Result<Vec<String>> {
    let found = resolver.resolve(host, 80).await?;
    Ok(found.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn search_domains_are_asked_in_their_order() {
    let server = Server::new(&[("hello.default.svc.cluster.local.", [10, 0, 0, 7])]).await;
    let resolver = Files::new("", POD).resolver();
    redirect(&resolver, POD, server.port);
    for host in ["hello", "hello.default", "hello.default.svc.cluster.local", "HELLO.default.svc"] {
        assert_eq!(ips(&resolver, host).await.unwrap(), ["10.0.0.7:80"], "{host}");
    }
    let asked = server.asked.lock().clone();
    assert_eq!(asked[0], "hello.default.svc.cluster.local.");
    // `hello.default` has fewer than five dots, so the search list comes first.
    assert_eq!(asked[1], "hello.default.default.svc.cluster.local.");
}

#[tokio::test]
async fn a_final_dot_leaves_the_search_list_out() {
    let server = Server::new(&[("a.example.", [192, 0, 2, 1])]).await;
    let resolver = Files::new("", POD).resolver();
    redirect(&resolver, POD, server.port);
    assert_eq!(ips(&resolver, "a.example.").await.unwrap(), ["192.0.2.1:80"]);
    assert_eq!(*server.asked.lock(), ["a.example."]);
}

#[tokio::test]
async fn names_that_do_not_exist_say_so() {
    let server = Server::new(&[]).await;
    let resolver = Files::new("", POD).resolver();
    redirect(&resolver, POD, server.port);
    let error = ips(&resolver, "gone.default").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("gone.default"), "{error}");
}

#[tokio::test]
async fn hosts_come_before_dns() {
    let files = Files::new("10.1.1.1 one one.internal # a pod\n::2 one\n10.1.1.2 two\n", "");
    let resolver = files.resolver();
    assert_eq!(ips(&resolver, "one").await.unwrap(), ["10.1.1.1:80", "[::2]:80"]);
    assert_eq!(ips(&resolver, "One.Internal").await.unwrap(), ["10.1.1.1:80"]);
    let error = ips(&resolver, "three").await.unwrap_err();
    assert!(error.to_string().contains("resolv.conf"), "{error}");
}

#[tokio::test]
async fn addresses_and_localhost_need_no_file() {
    let resolver = Resolver::with_files("/nonexistent/hosts", "/nonexistent/resolv.conf");
    assert_eq!(ips(&resolver, "192.0.2.9").await.unwrap(), ["192.0.2.9:80"]);
    assert_eq!(ips(&resolver, "::1").await.unwrap(), ["[::1]:80"]);
    for host in ["localhost", "LOCALHOST.", "a.localhost"] {
        assert_eq!(ips(&resolver, host).await.unwrap(), ["127.0.0.1:80", "[::1]:80"], "{host}");
    }
    assert!(ips(&resolver, "notlocalhost").await.is_err());
    assert_eq!(ips(&resolver, "a..b").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_seen() {
    let files = Files::new("10.1.1.1 one\n", "");
    let resolver = files.resolver();
    assert_eq!(ips(&resolver, "one").await.unwrap(), ["10.1.1.1:80"]);
    files.write("hosts", "10.1.1.1 other\n10.1.1.22 one\n");
    tokio::time::advance(RECHECK).await;
    assert_eq!(ips(&resolver, "one").await.unwrap(), ["10.1.1.22:80"]);
}
