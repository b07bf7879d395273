// The other end of node_main.mjs's fork().
process.on("message", ({ question }) => {
  process.send({ answer: question * 2, argument: process.argv[2] });
  process.disconnect();
});
