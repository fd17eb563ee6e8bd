//! The SSH server before a node's shell.

use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Node;

/// How long a refused login waits: a test need not.
const REJECTION: Duration = Duration::from_millis(10);

/// Serves each connection until it is dropped, and its connections with it.
pub async fn serve(listener: TcpListener, key: PrivateKey, node: Arc<Node>) {
    let config = Arc::new(Config {
        keys: vec![key],
        auth_rejection_time: REJECTION,
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: None,
        ..Config::default()
    });
    let mut sessions = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // What matters is the answer, not how many packets it takes.
        let _ = stream.set_nodelay(true);
        let (config, node) = (Arc::clone(&config), Arc::clone(&node));
        sessions.spawn(async move {
            match russh::server::run_stream(config, stream, Login { node }).await {
                Ok(session) => {
                    if let Err(error) = session.await {
                        tracing::debug!(%error, "an SSH connection ended");
                    }
                }
                Err(error) => tracing::debug!(%error, "an SSH connection did not come about"),
            }
        });
        while sessions.try_join_next().is_some() {}
    }
}

struct Login {
    node: Arc<Node>,
}

impl Login {
    fn knows(&self, user: &str, key: &russh::keys::PublicKey) -> bool {
        let config = &self.node.config;
        let known = |line: &String| {
            russh::keys::PublicKey::from_openssh(line).is_ok_and(|known| known.key_data() == key.key_data())
        };
        config.user == user && config.authorized_keys.iter().any(known)
    }
}

fn answer(welcome: bool) -> Auth {
    if welcome { Auth::Accept } else { Auth::reject() }
}

impl Handler for Login {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let config = &self.node.config;
        Ok(answer(config.user == user && config.password.as_deref() == Some(password)))
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(answer(self.knows(user, offer.public_key)))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(answer(self.knows(user, key.public_key)))
    }

    async fn channel_open_session(
        &mut self,
        mut channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        // Nothing is read from the client; the channel's own buffer must not fill up.
        tokio::spawn(async move { while channel.wait().await.is_some() {} });
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(id)?;
        let (node, handle) = (Arc::clone(&self.node), session.handle());
        let line = String::from_utf8_lossy(data).into_owned();
        tokio::spawn(async move {
            let printed = node.run(&line).await;
            // A client that has gone hears nothing of it; the command was run.
            let _ = handle.data(id, printed.stdout.into_bytes()).await;
            let _ = handle.extended_data(id, 1, printed.stderr.into_bytes()).await;
            let _ = handle.exit_status_request(id, printed.code).await;
            let _ = handle.eof(id).await;
            let _ = handle.close(id).await;
        });
        Ok(())
    }
}
