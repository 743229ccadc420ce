// Preloaded into servers of other projects that would listen on every interface:
// they listen on loopback instead, and say on stderr on which port.
const net = require("node:net");

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  this.once("listening", () => console.error(`PORT=${this.address().port}`));
  return listen.call(this, { port: Number(port), host: "127.0.0.1" }, ...rest.slice(-1));
};
