//! A real nginx for one pod, with its own folder and configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::machine::netns::Namespace;
use crate::machine::process::Process;
use crate::machine::scratch::Scratch;

/// What differs between the servers of tests.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// TCP port, in both families.
    pub port: u16,
    /// Seconds an idle connection stays open; 0 closes after every answer.
    pub keep_alive: u32,
    /// Bytes per second of `/slow`.
    pub slow_rate: u32,
    /// Bytes of the file behind `/slow`.
    pub slow_size: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 80,
            keep_alive: 60,
            slow_rate: 20_000,
            slow_size: 100_000,
        }
    }
}

/// A running nginx: `/` answers `<pod> <server address>`, `/slow` is a file sent slowly, `/files/` is
/// the folder [`Nginx::files`], to be read and written (PUT).
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    scratch: Scratch,
}

impl Nginx {
    /// Starts it in `namespace` and waits until it listens.
    pub fn start(namespace: &Namespace, pod: &str, settings: Settings) -> Result<Self> {
        let scratch = Scratch::new()?;
        for folder in ["files", "body", "logs"] {
            fs::create_dir(scratch.path().join(folder))?;
        }
        let configuration = configuration(scratch.path(), pod, settings);
        let configuration = scratch.write("nginx.conf", configuration)?;
        let slow: Vec<u8> = (b'a'..=b'z').cycle().take(settings.slow_size).collect();
        scratch.write("slow", slow)?;
        let mut command = namespace.command("nginx");
        command.arg("-p").arg(scratch.path());
        command.arg("-c").arg(configuration);
        command.args(["-e", "stderr"]);
        let log = scratch.path().join("log");
        let mut process = Process::start(&format!("nginx of {pod}"), command, &log)?;
        let address = (std::net::Ipv4Addr::LOCALHOST, settings.port).into();
        process.wait_until(Duration::from_secs(20), || {
            namespace.run(|| {
                let connected =
                    std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1));
                Ok(connected.is_ok())
            })
        })?;
        Ok(Self { process, scratch })
    }

    /// The folder behind `/files/`.
    pub fn files(&self) -> PathBuf {
        self.scratch.path().join("files")
    }

    /// Stops it as a kubelet stops an nginx container: no new connections, those that are open
    /// are served to their end (SIGQUIT).
    pub fn quit(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGQUIT)
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, limit: Duration) -> Result<()> {
        let log = self.process.log();
        self.process.wait(limit).context(log)?;
        Ok(())
    }

    /// Ends it at once; open connections break.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(Signal::SIGTERM)?;
        Ok(())
    }
}

fn configuration(folder: &Path, pod: &str, settings: Settings) -> String {
    let Settings {
        port,
        keep_alive,
        slow_rate,
        ..
    } = settings;
    let folder = folder.display();
    format!(
        "daemon off;
user root;
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_timeout {keep_alive};
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/logs;
    fastcgi_temp_path {folder}/logs;
    uwsgi_temp_path {folder}/logs;
    scgi_temp_path {folder}/logs;
    client_max_body_size 0;
    server {{
        listen {port} backlog=1024;
        listen [::]:{port} ipv6only=on backlog=1024;
        add_header X-Pod {pod};
        location / {{ return 200 \"{pod} $server_addr\\n\"; }}
        location = /peer {{ return 200 \"$remote_addr\\n\"; }}
        location = /slow {{ root {folder}; limit_rate {slow_rate}; }}
        location /files/ {{ root {folder}; dav_methods PUT; }}
    }}
}}
"
    )
}
