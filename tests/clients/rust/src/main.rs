//! Prints the output of the command DOWN, then that of the command UP, which gets the contents of FILE: with russh.
//!
//!     client PROXY USER KEY TARGET LOGIN FILE DOWN UP REKEY

use std::error::Error;
use std::sync::Arc;

use russh::client::{self, Handle, Handler, Session};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};

use russh::{Channel, ChannelMsg, Disconnect, Names};
use tokio::io::{AsyncWriteExt, stdout};

/// Prints a line for each key exchange.
struct NewKeys(&'static str);

impl Handler for NewKeys {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        _: &Names,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        eprintln!("{}: new keys", self.0);
        Ok(())
    }
}

async fn login(
    handle: &mut Handle<NewKeys>,
    user: &str,
    key: &Arc<PrivateKey>,
) -> Result<(), Box<dyn Error>> {
    let key = PrivateKeyWithHashAlg::new(key.clone(), None);
    match handle.authenticate_publickey(user, key).await?.success() {
        true => Ok(()),
        false => Err("the login was refused".into()),
    }
}

/// Prints the output of the channel's command.
async fn print(channel: &mut Channel<client::Msg>) -> Result<(), Box<dyn Error>> {
    let mut output = stdout();
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::Data { data } = message {
            output.write_all(&data).await?;
        }
    }
    output.flush().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [proxy, user, key, target, login_name, file, down, up, rekey] = &arguments[..] else {
        return Err("nine arguments are needed".into());
    };
    let mut config = client::Config::default();
    let limit: usize = rekey.parse()?;
    if limit > 0 {
        config.limits.rekey_write_limit = limit;
        config.limits.rekey_read_limit = limit;
    }
    let config = Arc::new(config);
    let key = Arc::new(load_secret_key(key, None)?);
    let (host, port) = target.rsplit_once(':').ok_or("the target has no port")?;

    let mut outer = client::connect(config.clone(), proxy, NewKeys("outer")).await?;
    login(&mut outer, user, &key).await?;
    let tunnel = outer
        .channel_open_direct_tcpip(host, port.parse()?, "127.0.0.1", 0)
        .await?;
    let mut inner = client::connect_stream(config, tunnel.into_stream(), NewKeys("inner")).await?;
    login(&mut inner, login_name, &key).await?;

    let mut channel = inner.channel_open_session().await?;
    channel.exec(true, down.as_str()).await?;
    print(&mut channel).await?;

    let mut channel = inner.channel_open_session().await?;
    channel.exec(true, up.as_str()).await?;
    channel.data(tokio::fs::File::open(file).await?).await?;
    channel.eof().await?;
    print(&mut channel).await?;
    inner.disconnect(Disconnect::ByApplication, "", "").await?;
    outer.disconnect(Disconnect::ByApplication, "", "").await?;
    Ok(())
}
