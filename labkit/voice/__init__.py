"""From speech to spoken reply: engines, models, and one turn through them."""
