//! The SSH server of a simulated fleet: one port, and the user's name names the host.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, MethodKind, MethodSet, Sig,
    SshId,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};

use super::confine::SHELL_NAME;
use super::cut::{Cut, CutStream};
use super::fault::faults;
use super::host;
use super::machine::Host;
use super::spec::MachineSpec;
use super::units::boot;

/// A host that the server plays.
#[derive(Debug)]
pub(super) struct SimulatedHost {
    name: String,
    spec: MachineSpec,
    folder: Host,
    made: Mutex<bool>,
}

impl SimulatedHost {
    /// A host of a name that lives in `root` once it is used.
    pub(super) fn new(name: &str, spec: MachineSpec, root: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            spec,
            folder: Host::new(root),
            made: Mutex::new(false),
        }
    }

    /// Its folder.
    pub(super) fn root(&self) -> &Path {
        self.folder.root()
    }

    fn boot_id(&self) -> String {
        self.folder.read("/proc/sys/kernel/random/boot_id")
    }

    /// Whether it is on its way down.
    fn is_down(&self) -> bool {
        boot::phase(&self.folder) == boot::Phase::GoingDown
    }

    /// Makes the folder on first use. What another process made meanwhile, or
    /// took back, is found out each time.
    async fn make(&self, binary: &Path) -> std::io::Result<()> {
        let mut made = self.made.lock().await;
        if *made && self.folder.private("state.json").exists() {
            return Ok(());
        }
        let (folder, name, spec, binary) = (
            self.folder.clone(),
            self.name.clone(),
            self.spec.clone(),
            binary.to_owned(),
        );
        let result =
            tokio::task::spawn_blocking(move || host::ensure(&folder, &name, &spec, &binary)).await;
        result.map_err(std::io::Error::other)??;
        *made = true;
        Ok(())
    }
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    shared: Arc<Shared>,
    config: Arc<Config>,
}

#[derive(Debug)]
struct Shared {
    hosts: BTreeMap<String, Arc<SimulatedHost>>,
    client_key: PublicKey,
    binary: PathBuf,
}

impl Server {
    /// A server for these hosts that lets the holder of `client_key` in.
    pub(super) fn new(
        hosts: BTreeMap<String, Arc<SimulatedHost>>,
        client_key: PublicKey,
        host_key: PrivateKey,
        binary: PathBuf,
    ) -> Self {
        let config = Config {
            server_id: SshId::Standard("SSH-2.0-deploy_sim".into()),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            inactivity_timeout: None,
            keys: vec![host_key],
            nodelay: true,
            ..Config::default()
        };
        Self {
            shared: Arc::new(Shared {
                hosts,
                client_key,
                binary,
            }),
            config: Arc::new(config),
        }
    }

    /// Serves until the task is dropped.
    pub(super) async fn run(self, listener: TcpListener) {
        let mut sessions = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (shared, config) = (Arc::clone(&self.shared), Arc::clone(&self.config));
                        sessions.spawn(serve(shared, config, stream));
                    }
                    // Out of file descriptors, most likely: some come back.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                },
                Some(_) = sessions.join_next() => {}
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, config: Arc<Config>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let cut = Arc::new(Cut::default());
    let stream = CutStream::new(stream, Arc::clone(&cut));
    let connection = Connection {
        shared,
        cut,
        host: None,
        boot: None,
        channels: HashMap::new(),
    };
    // How a session ends is the client's affair.
    if let Ok(session) = russh::server::run_stream(config, stream, connection).await {
        let _ = session.await;
    }
}

struct Connection {
    shared: Arc<Shared>,
    cut: Arc<Cut>,
    host: Option<Arc<SimulatedHost>>,
    /// The boot in which the connection was made; empty if the host was new.
    boot: Option<String>,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        self.hang_up_unless_served(user);
        Ok(self.judge(user, offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let auth = self.judge(user, key.public_key);
        self.hang_up_unless_served(user);
        if matches!(auth, Auth::Accept) {
            self.host = self.shared.hosts.get(user).cloned();
            self.boot = self.host.as_ref().map(|host| host.boot_id());
        }
        Ok(auth)
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(host) = &self.host {
            self.cut.after(faults(&host.folder).cut_after);
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // As sshd does with what is not in its AcceptEnv.
        session.channel_failure(id)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.begin(id, None, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.begin(id, Some(data.to_vec()), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}

impl Connection {
    /// All hosts share the port, so only who logs in tells which one is meant: then
    /// a machine that is down, or has no SSH server running, closes the connection.
    fn hang_up_unless_served(&self, user: &str) {
        let host = self.shared.hosts.get(user);
        if host.is_some_and(|host| !boot::takes_connections(&host.folder)) {
            self.cut.now();
        }
    }

    fn judge(&self, user: &str, key: &PublicKey) -> Auth {
        let known = key.key_data() == self.shared.client_key.key_data();
        if known && self.shared.hosts.contains_key(user) {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }

    fn begin(
        &mut self,
        id: ChannelId,
        command: Option<Vec<u8>>,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let (Some(channel), Some(host)) = (self.channels.remove(&id), self.host.clone()) else {
            return session.channel_failure(id);
        };
        let before = self.boot.as_deref().unwrap_or_default();
        if host.is_down() || !before.is_empty() && before != host.boot_id() {
            // The machine went down since; nobody has told the connection.
            self.cut.now();
            return Ok(());
        }
        session.channel_success(id)?;
        let binary = self.shared.binary.clone();
        let cut = Arc::clone(&self.cut);
        tokio::spawn(async move {
            let (input, output) = channel.split();
            run(&host, &binary, command, &cut, input, output).await;
        });
        Ok(())
    }
}

/// Runs one command, or a shell that reads its commands, on a channel.
async fn run(
    host: &SimulatedHost,
    binary: &Path,
    command: Option<Vec<u8>>,
    cut: &Cut,
    input: ChannelReadHalf,
    output: ChannelWriteHalf<Msg>,
) {
    let made = host.make(binary).await;
    let before = host.boot_id();
    let started = match made {
        Ok(()) => start(host, binary, command),
        Err(error) => Err(error),
    };
    let faults = faults(&host.folder);
    let mut child = match started {
        _ if faults.hang => return drain(input).await,
        Ok(child) => child,
        Err(error) => {
            let text = format!(
                "the simulated host {} cannot be started: {error}\n",
                host.name
            );
            let _ = output.extended_data_bytes(1, text.into_bytes()).await;
            let _ = output.exit_status(71).await;
            let _ = output.close().await;
            return;
        }
    };
    let delay = Duration::from_millis(faults.slow_ms.unwrap_or(0));
    tokio::time::sleep(delay).await;
    let feeding = tokio::spawn(feed(input, child.stdin.take()));
    let stdout = pump(child.stdout.take(), output.make_writer(), delay);
    let stderr = pump(child.stderr.take(), output.make_writer_ext(Some(1)), delay);
    // As with sshd, a process left behind that holds the output keeps the channel open.
    let ((), (), status) = tokio::join!(stdout, stderr, child.wait());
    if host.is_down() || host.boot_id() != before {
        // The machine went down under the command; nobody is left to say good-bye.
        cut.now();
        feeding.abort();
        return;
    }
    let _ = output.eof().await;
    match status.map(outcome) {
        Ok(Ok(code)) => {
            let _ = output.exit_status(code).await;
        }
        // A process that a signal ended: shells report 128 and its number.
        Ok(Err(signal)) => {
            let _ = output.exit_status(128 + signal).await;
        }
        Err(_) => {}
    }
    let _ = output.close().await;
    feeding.abort();
}

fn outcome(status: ExitStatus) -> Result<u32, u32> {
    use std::os::unix::process::ExitStatusExt;
    match status.code() {
        Some(code) => Ok(u32::try_from(code).unwrap_or(255)),
        None => Err(u32::try_from(status.signal().unwrap_or(0)).unwrap_or(0)),
    }
}

fn start(host: &SimulatedHost, binary: &Path, command: Option<Vec<u8>>) -> std::io::Result<Child> {
    use std::os::unix::ffi::OsStringExt;
    let mut process = Command::new(binary);
    process.arg0(SHELL_NAME).arg(host.root());
    if let Some(command) = command {
        process.arg(std::ffi::OsString::from_vec(command));
    }
    process
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// Hands the channel's input to a process; signals go to its process group.
async fn feed(mut input: ChannelReadHalf, stdin: Option<tokio::process::ChildStdin>) {
    // The channel must be read at once whatever the process does, or the whole
    // connection stands still; so there is a queue without a limit between them.
    let (queue, mut queued) = mpsc::unbounded_channel::<Vec<u8>>();
    let mut stdin = stdin;
    let writer = tokio::spawn(async move {
        while let Some(piece) = queued.recv().await {
            let Some(open) = stdin.as_mut() else { continue };
            if open.write_all(&piece).await.is_err() {
                stdin = None;
            }
        }
    });
    let mut queue = Some(queue);
    while let Some(message) = input.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(queue) = &queue {
                    let _ = queue.send(data.to_vec());
                }
            }
            ChannelMsg::Eof => queue = None,
            ChannelMsg::Signal {
                signal: Sig::KILL | Sig::TERM | Sig::INT | Sig::HUP,
            }
            | ChannelMsg::Close => break,
            _ => {}
        }
    }
    drop(queue);
    let _ = writer.await;
}

async fn drain(mut input: ChannelReadHalf) {
    while let Some(message) = input.wait().await {
        if matches!(message, ChannelMsg::Close) {
            return;
        }
    }
}

async fn pump(
    from: Option<impl AsyncRead + Unpin>,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // A client that went away: the process finds its pipe closed.
        if to.write_all(&buffer[..length]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}
