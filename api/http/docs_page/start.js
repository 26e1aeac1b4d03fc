// No validatorUrl: it would send the document to somebody else's server.
window.ui = SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", validatorUrl: null, deepLinking: true });
