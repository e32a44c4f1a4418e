//! A client and a server at the two ends of a veth pair: connections that begin
//! at a steady pace, exchange a request and an answer, and are closed in order.
//!
//! The pace is an open loop: a connection begins when it is due, whatever became
//! of those before it, as with users who know nothing of each other. What is
//! bounded is the number that is open at once. What becomes of the sockets is
//! the kernel's affair, and seeing it somebody else's.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as Door};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::churn::First;
use super::link::Pair;
use super::shape::Shape;

/// The server's first port; its other destinations follow.
pub const FIRST_DOOR: u16 = 8000;

/// How long the end that closes second keeps a socket that it is to leave open:
/// longer than the orphan at the other end waits for its FIN, even at a
/// tcp_fin_timeout of two minutes.
pub(super) const LEFT_OPEN: Duration = Duration::from_secs(150);

/// A connect() that is not answered by then is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections of one client that may be open at once, those left open apart.
pub(super) const AT_ONCE: usize = 1024;

/// A client that was kept from its work catches up with so much of it and lets
/// the rest be: a burst is no steady pace.
const CATCH_UP: Duration = Duration::from_secs(1);

const REQUEST: usize = 64;
const ANSWER: usize = 512;

/// Asks the server to leave the connection open when the client has closed.
const LEAVE_OPEN: u8 = b'!';

/// What became of the connections that were due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub begun: u64,
    /// Answered and closed in order.
    pub answered: u64,
    /// connect() found no free local port: EADDRNOTAVAIL.
    pub without_port: u64,
    /// Failed otherwise.
    pub failed: u64,
    /// Never begun: too many were open, or the client came too late.
    pub left_out: u64,
}

/// A client and a server at work. They end when this does.
#[derive(Debug)]
pub struct Workload {
    stop: Vec<oneshot::Sender<()>>,
    client: Option<JoinHandle<Result<Done>>>,
    server: Option<JoinHandle<Result<()>>>,
}

impl Workload {
    /// From `pair.near` to `pair.far`, at once. `lag`, below 1, is how much of
    /// the time between two connections the first is late: pairs that run side
    /// by side need not connect at the same moments.
    pub fn start(pair: &Pair, shape: &Shape, lag: f64) -> Result<Workload> {
        let host: IpAddr = Pair::FAR[0].parse()?;
        let targets: Vec<SocketAddr> = (0..shape.destinations)
            .map(|n| SocketAddr::new(host, FIRST_DOOR + n))
            .collect();
        // A socket belongs to the namespace in which it was made, and those it
        // accepts do too: the server's thread may be anywhere.
        let doors = pair.far.run(|| -> Result<Vec<Door>> {
            let open = |at: &SocketAddr| -> io::Result<Door> {
                let door = Door::bind(at)?;
                door.set_nonblocking(true)?;
                Ok(door)
            };
            targets
                .iter()
                .map(|at| open(at).with_context(|| format!("cannot listen on {at}")))
                .collect()
        })??;

        let (stop_server, server_stopped) = oneshot::channel();
        let first = shape.first;
        let server = thread::Builder::new()
            .name("lab-server".to_owned())
            .spawn(move || {
                runtime()?.block_on(async {
                    tokio::select! {
                        served = serve_all(doors, first) => served,
                        _ = server_stopped => Ok(()),
                    }
                })
            })
            .context("cannot start the server")?;

        let (stop_client, mut client_stopped) = oneshot::channel();
        let shape = shape.clone();
        let client = pair.near.spawn_thread("lab-client", move || {
            runtime()?.block_on(async {
                let mut client = Client::new(targets, &shape);
                tokio::select! {
                    () = client.keep_pace(lag) => {}
                    _ = &mut client_stopped => {}
                }
                Ok(client.done)
            })
        })?;
        Ok(Workload {
            stop: vec![stop_client, stop_server],
            client: Some(client),
            server: Some(server),
        })
    }

    /// Ends both, and says what they did. Open connections are closed as they are.
    pub fn stop(mut self) -> Result<Done> {
        self.stop.clear();
        let done = match self.client.take() {
            Some(client) => joined(client)?,
            None => Done::default(),
        };
        if let Some(server) = self.server.take() {
            joined(server)?;
        }
        Ok(done)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.clear();
        // Whoever wants to know how they fared calls `stop`.
        if let Some(client) = self.client.take() {
            let _ = client.join();
        }
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("a thread of the load panicked"))?
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an event loop for the load")
}

struct Client {
    targets: Vec<SocketAddr>,
    shape: Shape,
    open: JoinSet<io::Result<()>>,
    done: Done,
}

impl Client {
    fn new(targets: Vec<SocketAddr>, shape: &Shape) -> Client {
        Client {
            targets,
            shape: shape.clone(),
            open: JoinSet::new(),
            done: Done::default(),
        }
    }

    /// Begins one connection after the other, for ever.
    async fn keep_pace(&mut self, lag: f64) {
        let step = Duration::from_secs(1) / self.shape.rate;
        let mut due = Instant::now() + step.mul_f64(lag);
        for n in 0.. {
            self.wait_until(due).await;
            let late = due.elapsed();
            if self.open.len() < AT_ONCE && late < CATCH_UP {
                self.begin(n);
            } else {
                self.done.left_out += 1;
            }
            due += step;
        }
    }

    /// Meanwhile it takes note of those that have ended.
    async fn wait_until(&mut self, due: Instant) {
        let waited = sleep_until(due);
        tokio::pin!(waited);
        loop {
            tokio::select! {
                () = &mut waited => return,
                Some(ended) = self.open.join_next() => {
                    match ended {
                        Ok(Ok(())) => self.done.answered += 1,
                        Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                            self.done.without_port += 1;
                        }
                        _ => self.done.failed += 1,
                    }
                }
            }
        }
    }

    fn begin(&mut self, n: u64) {
        let target = self.targets[(n % self.targets.len() as u64) as usize];
        let first = self.shape.first;
        let left_open = self.shape.leaves_open(n);
        self.done.begun += 1;
        self.open.spawn(ask(target, first, left_open));
    }
}

/// One connection, from the client's side.
async fn ask(target: SocketAddr, first: First, left_open: bool) -> io::Result<()> {
    let connected = TcpSocket::new_v4()?.connect(target);
    let mut stream = timeout(PATIENCE, connected).await??;
    let mut request = [0; REQUEST];
    if left_open {
        request[0] = LEAVE_OPEN;
    }
    stream.write_all(&request).await?;
    stream.read_exact(&mut [0; ANSWER]).await?;
    if first == First::Server {
        close_second(stream, left_open).await;
    }
    Ok(())
}

/// Accepts at every door, for ever.
async fn serve_all(doors: Vec<Door>, first: First) -> Result<()> {
    let mut serving = JoinSet::new();
    for door in doors {
        let door = TcpListener::from_std(door).context("cannot wait for connections")?;
        serving.spawn(async move {
            loop {
                let (stream, _) = door.accept().await?;
                tokio::spawn(serve(stream, first));
            }
        });
    }
    let ended: Option<Result<io::Result<()>, _>> = serving.join_next().await;
    ended
        .context("the server has no port")??
        .context("the server cannot accept")
}

/// One connection, from the server's side. What fails here, fails at the client
/// too, who counts it.
async fn serve(mut stream: TcpStream, first: First) {
    let mut request = [0; REQUEST];
    if stream.read_exact(&mut request).await.is_err()
        || stream.write_all(&[0; ANSWER]).await.is_err()
    {
        return;
    }
    if first == First::Client {
        close_second(stream, request[0] == LEAVE_OPEN).await;
    }
}

/// Waits for the other end's FIN and closes, or leaves its own open.
async fn close_second(mut stream: TcpStream, left_open: bool) {
    let ended = stream.read(&mut [0]).await;
    if left_open && ended.is_ok() {
        tokio::spawn(async move {
            sleep(LEFT_OPEN).await;
            drop(stream);
        });
    }
}
