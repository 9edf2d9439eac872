//! The two ports, with a thread for each connection.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};

use super::dispatcher::Dispatcher;
use super::resource_manager::FileId;
use super::upstream::connect;
use super::wire;
use crate::ports::PortPair;

pub struct Listener {
    ports: PortPair,
    open: Arc<Open>,
    acceptors: Vec<JoinHandle<()>>,
}

/// What to close at the end.
#[derive(Default)]
struct Open {
    ended: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

/// Whose commands the data port takes.
#[derive(Clone, Copy)]
pub enum Caller {
    /// Those to the bare TPM.
    Bare,
    /// Those of one open file of the resource manager, whoever connects.
    File(FileId),
    /// Those of a file that each connection opens, and closes when it ends.
    Connection,
}

impl Listener {
    pub fn start(dispatcher: Arc<Dispatcher>, caller: Caller) -> Result<Self> {
        let ports = PortPair::reserve()?;
        let listen = |port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .with_context(|| format!("to listen at port {port} of the loopback"))
        };
        let (data, control) = (listen(ports.first())?, listen(ports.first() + 1)?);
        let open = Arc::new(Open::default());
        let commands = Arc::clone(&dispatcher);
        let serve_commands = move |stream, _: &Open| serve(stream, &commands, caller);
        let serve_control = move |stream, open: &Open| pass_on(stream, &dispatcher, open);
        let acceptors = vec![
            accept(data, Arc::clone(&open), serve_commands),
            accept(control, Arc::clone(&open), serve_control),
        ];
        Ok(Self {
            ports,
            open,
            acceptors,
        })
    }

    pub fn port(&self) -> u16 {
        self.ports.first()
    }

    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.open.ended.store(true, Ordering::SeqCst);
        self.open.close();
        for (acceptor, port) in self.acceptors.drain(..).zip(self.ports.first()..) {
            // Wakes the acceptor, so that it ends.
            let _ = connect(port);
            let _ = acceptor.join();
        }
    }
}

impl Open {
    /// Registers a stream to be closed at the end, and forgets those that have closed.
    fn add(&self, stream: &TcpStream) -> io::Result<()> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ended.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        streams.retain(|stream| stream.peer_addr().is_ok());
        streams.push(stream.try_clone()?);
        Ok(())
    }

    fn close(&self) {
        for stream in self
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept<S>(listener: TcpListener, open: Arc<Open>, serve: S) -> JoinHandle<()>
where
    S: Fn(TcpStream, &Open) -> Result<()> + Send + Sync + 'static,
{
    thread::spawn(move || {
        thread::scope(|scope| {
            for stream in listener.incoming().flatten() {
                if open.ended.load(Ordering::SeqCst) {
                    break;
                }
                let (serve, open) = (&serve, &open);
                scope.spawn(move || {
                    let registered = open.add(&stream);
                    // If a connection breaks, the client notices.
                    let _ = registered.map(|()| serve(stream, open));
                });
            }
        });
    })
}

/// Answers commands until the client hangs up, or one gets no response.
fn serve(stream: TcpStream, dispatcher: &Dispatcher, caller: Caller) -> Result<()> {
    match caller {
        Caller::Bare => converse(stream, dispatcher, None),
        Caller::File(file) => converse(stream, dispatcher, Some(file)),
        Caller::Connection => {
            let file = dispatcher.bus().manager.open();
            let conversation = converse(stream, dispatcher, Some(file));
            dispatcher.close(file);
            conversation
        }
    }
}

fn converse(mut stream: TcpStream, dispatcher: &Dispatcher, file: Option<FileId>) -> Result<()> {
    stream.set_nodelay(true)?;
    while let Some(command) = wire::read_frame(&mut stream)? {
        match dispatcher.run(&command, file) {
            Ok(response) => stream.write_all(&response)?,
            Err(error) => {
                stream.shutdown(Shutdown::Both)?;
                return Err(error);
            }
        }
    }
    stream.shutdown(Shutdown::Both)?;
    Ok(())
}

/// Passes on the control channel, both ways.
fn pass_on(mut client: TcpStream, dispatcher: &Dispatcher, open: &Open) -> Result<()> {
    let mut server = connect(dispatcher.upstream().control)?;
    open.add(&server)?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    let answering = thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
    let _ = answering.join();
    Ok(())
}
