"""How to talk to one replica over HTTP/1.1: who may be dialled, what is asked, what came back."""
